"""What runs in a sandbox at this moment, for a person who asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sandbox.base import ExecResult
from sandbox.ended_command import EndedCommand
from tests.contract.sandbox_backends import (
    ALL_BACKENDS,
    FILESYSTEM_BACKENDS,
    PROCESS_BACKENDS,
    a_sleep,
    finish,
    open_place,
    read_until,
)


@pytest.fixture(params=ALL_BACKENDS)
async def place(request, reachable_dir):
    """Every backend."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def real(request, reachable_dir):
    """Every backend whose processes and folders are this host's own."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=PROCESS_BACKENDS)
async def every(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


async def test_a_running_command_is_listed(place):
    """A command that runs shows what it was started with; one that has ended shows nothing."""
    sleep = a_sleep()
    command = await place.start("sleep", sleep, env={"SCRIPT_SLEEP_S": "60"})
    async with asyncio.timeout(20):
        while not [one for one in await command.processes() if f"sleep {sleep}" in one.command]:
            await asyncio.sleep(0.01)
    await command.kill()
    assert await command.processes() == []


async def test_the_whole_tree_is_listed_with_its_facts(every):
    """Children are below their parents, busy ones have used time, and the start is a moment of this host."""
    before = time.time()
    child, orphan = a_sleep(), a_sleep()
    script = (
        f"sh -c 'while :; do :; done' & sleep {child} & (setsid sleep {orphan} &); echo up; wait"
    )
    command = await every.start(script)
    await read_until(command.stream(), b"up")
    found: dict[str, Any] = {}
    async with asyncio.timeout(20):
        while len(found) < 4 or not found["while"].cpu_s:
            await asyncio.sleep(0.05)
            for one in await command.processes():
                name = next(w for w in ("echo up", "while", child, orphan) if w in one.command)
                found[name] = one
    main = found["echo up"]
    assert found["while"].parent_pid == found[child].parent_pid == main.pid
    assert found[orphan].parent_pid != main.pid
    assert found[child].state == "S"
    for one in found.values():
        assert before - 5 < one.start_s < time.time() + 5, one
    await command.kill()


async def test_long_and_strange_command_lines_are_whole(real):
    """Nothing is cut that a person's part would cut: only whole words can be masked."""
    odd = "x" * 5000 + "\n\x1b[2Jé"
    sleep = a_sleep()
    command = await real.start("/bin/sh", "-c", f"sleep {sleep}; :", odd)
    lines: list[str] = []
    async with asyncio.timeout(20):
        while not any(f"{sleep}; :" in line for line in lines):
            lines = [one.command for one in await command.processes()]
    assert any(odd in line for line in lines)
    await command.kill()


async def test_nothing_is_listed_of_a_command_that_never_began() -> None:
    """An ended command answers like any other."""
    command = EndedCommand(ExecResult(exit_code=127))
    assert await command.processes() == []
    assert (await finish(command))[1].exit_code == 127
