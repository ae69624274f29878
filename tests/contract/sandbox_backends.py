"""The backends of the sandbox contract, and what its tests share."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox import procfs
from sandbox.base import Command, ExecRequest, ExecResult, Sandbox, SandboxRequest, Tier
from sandbox.container.provider import ContainerProvider
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.lanes import JOB_UIDS
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.scripted import ScriptedProvider
from tests.contract.container_engine import settings_for
from tests.contract.deviations import (
    BWRAP,
    CONTAINER,
    LANDLOCK,
    PLAIN,
    SANDBOX_DEVIATIONS,
    SCRIPTED,
    backend_on,
)
from tests.contract.engine_kinds import ENGINES

DEADLINE_S = 90.0
QUIET_LOOKS = 5
FILESYSTEM_BACKENDS = (BWRAP, LANDLOCK, PLAIN)
PROCESS_BACKENDS = (*FILESYSTEM_BACKENDS, *map(backend_on, ENGINES))
"""Those that run something, for what can be seen without looking into a workspace on this host."""
ALL_BACKENDS = (SCRIPTED, *PROCESS_BACKENDS)
WARM = "warm"
"""Bubblewrap whose sandboxes are built ahead, beside the others where it can make a difference: what deviates there deviates here."""
_names = itertools.count(1)


@dataclass
class Place:
    """A provider under test and one sandbox of it."""

    backend: str
    provider: FilesystemProvider | ContainerProvider | ScriptedProvider
    root: Path
    sandbox: Sandbox
    made: list[Sandbox] = field(default_factory=list)
    warm: bool = False
    """Whether a sandbox is built ahead, beside this one."""

    @property
    def job_uid(self) -> int:
        """Return who owns what a command makes, on the host."""
        return self.workspace.joinpath("home").stat().st_uid

    @property
    def workspace(self) -> Path:
        """Return the folder of the sandbox on the host."""
        return self.root / self.sandbox.base_env["RUNNER_SANDBOX"]

    async def another(self, **request: object) -> Sandbox:
        """Make one more sandbox of the same provider."""
        name = f"box-{next(_names):05}"
        return await self.provider.create(
            SandboxRequest(name=name, min_tier=Tier.PLAIN, **request)  # type: ignore[arg-type]
        )

    async def start(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        cwd: str = "/job/src",
        sandbox: Sandbox | None = None,
        **bounds: Any,
    ) -> Command:
        """Start a command; a single argument is a shell script."""
        place = sandbox or self.sandbox
        words = argv if len(argv) > 1 else ("/bin/sh", "-c", argv[0])
        request = ExecRequest(argv=words, env=env or {}, cwd=place.inside(cwd), **bounds)
        return await place.exec(request)

    async def run(self, *argv: str, **options: object) -> tuple[bytes, ExecResult]:
        """Run a command to its end; return its output and its result."""
        command = await self.start(*argv, **options)  # type: ignore[arg-type]
        return await finish(command)


async def finish(command: Command) -> tuple[bytes, ExecResult]:
    """Read a command to its end, within the deadline of every test."""
    async with asyncio.timeout(DEADLINE_S):
        output = b"".join([piece async for piece in command.stream()])
        return output, await command.wait()


async def read_until(stream: AsyncIterator[bytes], text: bytes) -> bytes:
    """Read until this text has come."""
    seen = b""
    async with asyncio.timeout(DEADLINE_S):
        async for piece in stream:
            seen += piece
            if text in seen:
                return seen
    raise AssertionError(f"{text!r} did not come: {seen!r}")


def running(text: str) -> list[str]:
    """Return the command lines of this host that hold a text."""
    lines = [procfs.command_line(stat.pid) for stat in procfs.snapshot().values() if stat.alive]
    return [line for line in lines if text in line]


def a_sleep() -> str:
    """Return how many seconds no other command of this host sleeps, to find processes by: other files and other runs are tested beside this one."""
    return f"4711.{os.getpid():07}{next(_names):05}"


def any_alive(pids: set[int]) -> bool:
    """Tell whether one of these processes still runs."""
    return any(stat.alive for pid in pids if (stat := procfs.read_stat(pid)) is not None)


async def until(condition, message: str = "the condition") -> None:
    """Wait for a condition, within the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def until_waiting() -> None:
    """Wait until nothing below this process computes, at several looks in a row."""
    quiet = 0

    def all_wait() -> bool:
        nonlocal quiet
        processes = procfs.snapshot()
        below = procfs.descendants(processes, {os.getpid()})
        computing = any(processes[pid].state in "RD" for pid in below)
        quiet = 0 if computing else quiet + 1
        return quiet == QUIET_LOOKS

    await until(all_wait)


def open_backend(
    backend: str, root: Path, job_uids: range = JOB_UIDS
) -> FilesystemProvider | ContainerProvider | ScriptedProvider:
    """Return the provider of a backend; ``root`` is the engine's for containers, ``job_uids`` are for those of root."""
    if tier_of(backend) == CONTAINER:
        return ContainerProvider(settings_for(root), owner_label=f"contract-{os.getpid()}")
    if backend == SCRIPTED:
        return ScriptedProvider(owner_label="contract")
    return FilesystemProvider(
        root,
        owner_label=f"contract-{os.getpid()}",
        tier=Tier.parse(tier_of(backend)),
        allow_plain=True,
        job_uids=job_uids,
        warm_slots=1 if backend == WARM else 0,
    )


def tier_of(backend: str) -> str:
    """Return which tier a backend is, by which the tests and most deviations go."""
    return BWRAP if backend == WARM else backend.partition("-")[0]


async def until_warm(provider: FilesystemProvider) -> None:
    """Wait until a sandbox was built ahead."""
    await until(lambda: provider.parked_pids, "a warm slot")


async def open_place(
    request: pytest.FixtureRequest, root: Path, job_uids: range = JOB_UIDS
) -> AsyncIterator[Place]:
    """Yield a place of the backend that the test is parametrised with; skip what is missing here."""
    backend: str = request.param
    test = request.node.originalname
    for what in sorted({tier_of(backend), backend}):
        if (reason := SANDBOX_DEVIATIONS.get((what, test))) is not None:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if tier_of(backend) == CONTAINER:
        root = request.getfixturevalue(f"{backend.partition('-')[2]}_engine")
    async for place in opened_place(backend, root, job_uids):
        yield place


async def opened_place(
    backend: str, root: Path, job_uids: range = JOB_UIDS
) -> AsyncIterator[Place]:
    """Yield a place of a backend; skip what is missing here."""
    provider = open_backend(backend, root, job_uids)
    try:
        await provider.probe()
    except SandboxUnavailableError as error:
        pytest.skip(f"{backend} does not work here: {error}")
    if backend == WARM and isinstance(provider, FilesystemProvider):
        await until_warm(provider)
    sandbox = await provider.create(
        SandboxRequest(name=f"box-{next(_names):05}", min_tier=Tier.PLAIN)
    )
    try:
        yield Place(tier_of(backend), provider, root, sandbox, warm=backend == WARM)
    finally:
        await provider.close()
