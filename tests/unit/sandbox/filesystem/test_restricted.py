"""Spawning from threads that gave up their rights."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.filesystem.restricted import Spawner
from sandbox.process import spawn
from tests.waiting import wait_until

JOB_UID = 64123


@pytest.fixture
def spawner():
    """A spawner as the provider makes it for this user."""
    made = Spawner(changes_user=os.geteuid() == 0)
    yield made
    made.close()
    made.close()


async def output_of(spawner: Spawner, *argv: str) -> str:
    """Run a command to its end and return what it printed."""
    read_fd, write_fd = os.pipe()

    def start() -> subprocess.Popen[bytes]:
        return spawn(argv, env={}, output_fd=write_fd)

    try:
        popen = await spawner.spawn(start, uid=JOB_UID if os.geteuid() == 0 else None)
    finally:
        os.close(write_fd)
    with os.fdopen(read_fd) as pipe:
        text = await asyncio.to_thread(pipe.read)
    assert await asyncio.to_thread(popen.wait) == 0
    return text


async def test_every_command_gives_up_the_same(spawner):
    """The second command of a spawner has no more rights than the first."""
    lines = ("Uid", "Gid", "Groups", "CapBnd", "CapEff", "CapPrm", "CapAmb", "NoNewPrivs")
    pattern = f"^({'|'.join(lines)}):"
    first = await output_of(spawner, "/bin/grep", "-E", pattern, "/proc/self/status")
    assert await output_of(spawner, "/bin/grep", "-E", pattern, "/proc/self/status") == first
    fields = dict(line.split(":", 1) for line in first.splitlines())
    assert fields["NoNewPrivs"].split() == ["1"]
    if os.geteuid() == 0:
        assert set(fields["Uid"].split() + fields["Gid"].split()) == {str(JOB_UID)}
        assert fields["Groups"].split() == []
        caps = {int(fields[name], 16) for name in ("CapBnd", "CapEff", "CapPrm", "CapAmb")}
        assert caps == {0}


async def test_no_waiting_thread_is_of_the_jobs_user(spawner):
    """A job may signal what is of its user, and a signal to one thread ends all of them."""
    await output_of(spawner, "/bin/true")

    def users() -> set[str]:
        found = set()
        for status in Path("/proc/self/task").glob("*/status"):
            with contextlib.suppress(OSError):  # a thread that has just ended
                found |= set(re.findall(r"Uid:.*", status.read_text()))
        return found

    # The thread of the command itself ends a moment after it.
    await asyncio.to_thread(wait_until, lambda: len(users()) == 1, 10, lambda: str(users()))


async def test_a_command_that_cannot_be_executed_raises(spawner):
    """And the spawner goes on."""
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            await spawner.spawn(lambda: spawn(["/no/such/program"], env={}, output_fd=2))
    await output_of(spawner, "/bin/true")


async def test_a_spawner_that_was_closed_can_begin_again(spawner):
    """Closing ends the thread, not the object."""
    await output_of(spawner, "/bin/true")
    spawner.close()
    await output_of(spawner, "/bin/true")


async def test_a_host_that_has_no_thread_for_a_moment_costs_one_command(monkeypatch):
    """The command fails, as the host's fault, and the next one runs."""
    made = Spawner(changes_user=False)
    start_new_thread = _thread.start_new_thread

    def refuse(*_: object) -> int:
        monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(SandboxBrokenError, match="thread"):
        await made.spawn(true)
    async with asyncio.timeout(10):
        popen = await made.spawn(true)
    assert await asyncio.to_thread(popen.wait) == 0
    made.close()


async def test_a_thread_that_could_not_be_restricted_is_replaced():
    """Whatever it failed by: the command fails, and the next one gets another thread."""
    failures: list[Exception] = [OSError(24, "Too many open files"), SandboxUnavailableError("no")]

    def for_good() -> None:
        if failures:
            raise failures.pop()

    made = Spawner(changes_user=False, for_good=for_good)
    async with asyncio.timeout(10):
        with pytest.raises(SandboxUnavailableError):
            await made.spawn(true)
        with pytest.raises(SandboxBrokenError, match="Too many"):
            await made.spawn(true)
        popen = await made.spawn(true)
    assert await asyncio.to_thread(popen.wait) == 0
    made.close()


def true() -> subprocess.Popen[bytes]:
    with open(os.devnull, "wb") as nowhere:
        return spawn(["/bin/true"], env={}, output_fd=nowhere.fileno())
