"""Runs one job here and now, without daemon or server: the engine of ``runner run-local``.

The same executor and the same sandbox as under the worker, so that the verdict is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_runner.executor import AttemptControl, AttemptRequest, AttemptRun, StopReason
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import LogSummary, Outcome
from sandbox import procfs
from sandbox.base import Capabilities, SandboxProvider, Tier
from sandbox.factory import open_provider
from sandbox.process import apply_process_defaults

PREFIX = "run-local-"


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShot:
    """What to run and where."""

    job_id: str
    spec: JobSpec
    secrets: Mapping[str, str]
    """Values of ``${secret:local:NAME}`` by NAME."""
    workspaces: Path
    """Parent of the folder that this run makes for itself and removes."""
    owner_label: str
    """Marks what belongs to this installation."""
    tier: str = "auto"
    allow_plain: bool = False
    cancel_grace_s: float = 10.0


class _Output:
    """A LogWriter that hands the bytes on at once."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._digest = hashlib.sha256()
        self._length = 0

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self._length += len(data)
        self._write(data)

    async def drained(self) -> None:
        await asyncio.sleep(0)  # the write itself blocks, and that is the back-pressure

    def summary(self) -> LogSummary:
        return LogSummary(length=self._length, sha256=self._digest.hexdigest())


def run_one_shot(
    shot: OneShot, write: Callable[[bytes], None], on_start: Callable[[Capabilities], None]
) -> Outcome:
    """Run the job to its end; called once per process. ``write`` gets the masked output as it comes.

    The first SIGINT or SIGTERM cancels the command (TERM, grace, KILL), the second kills it at once.
    """
    return asyncio.run(_run(shot, write, on_start))


async def _run(
    shot: OneShot, write: Callable[[bytes], None], on_start: Callable[[Capabilities], None]
) -> Outcome:
    apply_process_defaults()
    await _sweep(shot)
    provider = _open(shot, _own_name(os.getpid()))
    on_start(await provider.probe())
    control = AttemptControl()
    _listen_for_signals(control, shot.cancel_grace_s)
    values = {("local", name): value for name, value in shot.secrets.items()}
    request = AttemptRequest(job_id=shot.job_id, attempt=1, spec=shot.spec)
    run = AttemptRun(provider, request, values, _Output(write), control)
    try:
        return await run.run()
    finally:
        await run.clean_up()
        await provider.close()
        with contextlib.suppress(OSError):  # others have theirs in it
            shot.workspaces.rmdir()


def _open(shot: OneShot, name: str) -> SandboxProvider:
    return open_provider(
        "filesystem",
        root=shot.workspaces / name,
        owner_label=f"{shot.owner_label}-{name}",
        tier=None if shot.tier == "auto" else Tier.parse(shot.tier),
        allow_plain=shot.allow_plain,
    )


def _own_name(pid: int) -> str:
    """Return the name of a run's folder; the start time tells a run from a later one with its pid."""
    stat = procfs.read_stat(pid)
    return f"{PREFIX}{pid}-{stat.start_ticks if stat else 0}"


async def _sweep(shot: OneShot) -> None:
    """Remove the processes and workspaces of runs that were killed before they could."""
    for folder in shot.workspaces.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and folder.name != _own_name(int(pid)):
            dead = _open(shot, folder.name)
            await dead.reap()
            await dead.close()


def _listen_for_signals(control: AttemptControl, grace_s: float) -> None:
    loop = asyncio.get_running_loop()

    def told() -> None:
        urgent = control.reason is not None
        control.stop(StopReason.CANCEL, 0 if urgent else grace_s)

    loop.add_signal_handler(signal.SIGINT, told)
    loop.add_signal_handler(signal.SIGTERM, told)
