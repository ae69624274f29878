"""Runs one job here and now, without daemon or server: the engine of ``runner run-local``.

The same executor and the same sandbox as under the worker, so that the verdict is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.executor import AttemptRequest, AttemptRun
from agent_runner.fallback import Consent
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, LogSummary, Outcome
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.secret_source import SecretSource
from agent_runner.watcher import Watcher
from sandbox import procfs
from sandbox.base import Capabilities, SandboxProvider, Tier
from sandbox.container.settings import ContainerSettings
from sandbox.errors import SandboxError
from sandbox.factory import CONTAINER, FILESYSTEM, open_kinds
from sandbox.process import apply_process_defaults

PREFIX = "run-local-"
MAX_PENDING_BYTES = 1 << 20
"""How much waits for the reader before the command does."""
STALLED_S = 2.0
"""A reader that takes nothing for so long is not waited for when the run is to end."""
LOST_MESSAGE = "the end of the output was not read"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShot:
    """What to run and where."""

    job_id: str
    spec: JobSpec
    secrets: SecretSource
    workspaces: Path
    """Parent of the folder that this run makes for itself and removes."""
    source_dir: Path
    """Where sources are prepared, shared with every other run."""
    owner_label: str
    """Marks what belongs to this installation."""
    kind: str = FILESYSTEM
    """What the job gets that names no kind."""
    container: ContainerSettings | None = None
    """How the engine is reached, where a container is asked for."""
    consent: Consent | None = None
    """Asks a person whether a job may run outside a container."""
    tier: str = "auto"
    allow_plain: bool = False
    watcher: Watcher | None = None
    stdin: int | None = None
    """See ``ExecRequest.stdin``."""
    outputs_dir: Path | None = None
    """Where outputs are put; they are not kept without it."""
    max_output_bytes: int = 2 << 30
    cache_dir: Path | None = None
    """Where results are kept that stand for equal jobs; None runs every job."""
    cancel_grace_s: float = 10.0
    providers: Callable[..., SandboxProvider] = open_kinds
    """Opens the sandboxes; given by tests only."""


class Stoppable(Protocol):
    """What a signal stops: one attempt, or several."""

    def stop(self, reason: StopReason, grace_s: float) -> None:
        """Ask for the end; repeating it can only make it more urgent."""
        ...


class ThreadedOutput:
    """A LogWriter that has a thread hand the bytes on, because a reader that does not read must stop no timer.

    Used by the event loop but for ``_hand_on``.
    """

    def __init__(self, write: Callable[[bytes], None], on_broken: Callable[[], None]) -> None:
        self._write = write
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._digest = hashlib.sha256()
        self._length = 0
        self._pending = 0
        self._handed_on = 0
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = asyncio.Event()
        self.error: OSError | None = None
        """Why the reader takes no more."""
        self.lost = False
        """Whether bytes were dropped because the reader did not read."""
        # A daemon: at the end of the process nobody waits for a reader that was given up.
        threading.Thread(target=self._hand_on, daemon=True).start()

    def write(self, data: bytes) -> None:
        """Take bytes, in order."""
        self._digest.update(data)
        self._length += len(data)
        if self.lost or self.error is not None:
            return
        self._pending += len(data)
        self._queue.put(data)
        if self._pending > MAX_PENDING_BYTES:
            self._room.clear()

    async def drained(self) -> None:
        """Wait until there is room for more."""
        await self._room.wait()

    def summary(self) -> LogSummary:
        """Return length and digest of all that was written."""
        return LogSummary(length=self._length, sha256=self._digest.hexdigest())

    async def flush(self) -> None:
        """Wait until the reader has everything, has gone or was given up; called last."""
        self._queue.put(None)
        await self._ended.wait()

    async def give_up_a_stalled_reader(self) -> None:
        """Drop what is left once the reader has taken nothing for a while; for a run that is to end."""
        while True:
            before = self._handed_on
            await asyncio.sleep(STALLED_S)
            if self._pending and self._handed_on == before:
                self.give_up()

    def give_up(self) -> None:
        """Drop what is left."""
        self.lost = self.lost or self._pending > 0
        self._room.set()
        self._ended.set()

    def _hand_on(self) -> None:
        """Write piece by piece, in the thread."""
        error = None
        while (data := self._queue.get()) is not None:
            try:
                self._write(data)
            except OSError as failure:
                error = failure
                break
            self._tell(self._taken, len(data))
        self._tell(self._end, error)

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        with contextlib.suppress(RuntimeError):  # the run is over
            self._loop.call_soon_threadsafe(what, *facts)

    def _taken(self, count: int) -> None:
        self._pending -= count
        self._handed_on += count
        if self._pending <= MAX_PENDING_BYTES:
            self._room.set()

    def _end(self, error: OSError | None) -> None:
        self.error = error
        self._room.set()
        self._ended.set()
        if error is not None:
            self._on_broken()


def run_one_shot(
    shot: OneShot, write: Callable[[bytes], None], on_start: Callable[[Capabilities], None]
) -> Outcome:
    """Run the job to its end; called once per process. ``write`` gets the masked output as it comes.

    The first SIGINT or SIGTERM cancels the command (TERM, grace, KILL), the second kills it at once. From then on
    a reader that takes nothing is not waited for.

    Raises:
        OSError: The output could not be written, for example because its reader has gone; the job was cancelled. Or an
            output of the job could not be put into its folder.
    """
    apply_process_defaults()
    return asyncio.run(one_shot(shot, write, on_start))


async def one_shot(
    shot: OneShot, write: Callable[[bytes], None], on_start: Callable[[Capabilities], None]
) -> Outcome:
    """Do the same on a loop that runs already, and that takes the signals of the process."""
    control = AttemptControl()
    output = ThreadedOutput(write, partial(control.stop, StopReason.CANCEL, shot.cancel_grace_s))
    async with obeying_signals(control, output, shot.cancel_grace_s):
        await sweep(shot)
        outcome = await _attempt(shot, output, control, on_start)
        # Nothing of the job is left now, so a slow reader keeps nothing but its output waiting.
        await output.flush()
    if output.error is not None:
        raise output.error
    if output.lost:
        outcome = replace(outcome, end_reason=EndReason.CANCELLED, message=LOST_MESSAGE)
    return outcome


async def _attempt(
    shot: OneShot,
    output: ThreadedOutput,
    control: AttemptControl,
    on_start: Callable[[Capabilities], None],
) -> Outcome:
    """Run the attempt and remove everything that it needed, however it ended."""
    provider = open_sandboxes(shot, own_name(os.getpid()))
    try:
        on_start(await sandbox_found(provider))
        async with staged_outputs(shot, shot.job_id, shot.spec) as place:
            request = AttemptRequest(
                job_id=shot.job_id,
                attempt=1,
                spec=shot.spec,
                source_dir=shot.source_dir,
                watcher=shot.watcher,
                stdin=shot.stdin,
                outputs=place,
            )
            run = AttemptRun(provider, request, shot.secrets, output, control, shot.consent)
            try:
                outcome = await run.run()
            finally:
                with contextlib.suppress(
                    SandboxError
                ):  # the provider tries again, and says what stays
                    await run.clean_up()
            if shot.outputs_dir is not None:
                await put_outputs(outcome, place, shot.outputs_dir)
            return outcome
    finally:
        await provider.close()
        with contextlib.suppress(OSError):  # others have theirs in it
            shot.workspaces.rmdir()


def staged_outputs(
    shot: OneShot, job_id: str, spec: JobSpec
) -> AbstractAsyncContextManager[OutputsPlace | None]:
    """Give a place for the outputs of one attempt; None if there are none."""
    if shot.outputs_dir is None or not (spec.outputs.paths or spec.cache):
        return contextlib.nullcontext()
    from agent_runner.outputs.kept_here import staged_here  # noqa: PLC0415 - few jobs have outputs

    return staged_here(shot.source_dir, job_id, shot.max_output_bytes, shot.cache_dir)


async def put_outputs(outcome: Outcome, place: OutputsPlace | None, folder: Path) -> None:
    """Put the outputs of one attempt into a folder.

    Raises:
        OSError: One cannot be written; names it.
    """
    if place is not None and outcome.outputs.files:
        from agent_runner.outputs.kept_here import put_here  # noqa: PLC0415 - few jobs have any

        await put_here(outcome.outputs, place, folder)


def open_sandboxes(shot: OneShot, name: str) -> SandboxProvider:
    """Return what makes the sandboxes of a run, in a folder of this name."""
    return shot.providers(
        shot.kind,
        root=shot.workspaces / name,
        owner_label=f"{shot.owner_label}-{name}",
        tier=None if shot.tier == "auto" else Tier.parse(shot.tier),
        allow_plain=shot.allow_plain,
        container=shot.container,
    )


async def sandbox_found(provider: SandboxProvider) -> Capabilities:
    """Return what the sandbox will be. Whether there is an engine is what the attempt finds out: that is an end of its own."""
    if provider.kind == CONTAINER:
        return Capabilities(kind=CONTAINER, tier=Tier.CONTAINER)
    return await provider.probe()


def own_name(pid: int) -> str:
    """Return the name of a run's folder; the start time tells a run from a later one with its pid."""
    stat = procfs.read_stat(pid)
    return f"{PREFIX}{pid}-{stat.start_ticks if stat else 0}"


async def sweep(shot: OneShot) -> None:
    """Remove the processes and workspaces of runs that were killed before they could.

    What cannot be removed is no reason not to run this job.
    """
    for folder in shot.workspaces.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdecimal() and folder.name != own_name(int(pid)):
            try:
                dead = open_sandboxes(shot, folder.name)
                await dead.reap()
                await dead.close()
            except (OSError, SandboxError) as error:
                logger.warning(
                    "A folder of an earlier run cannot be removed: %s: %s",
                    folder,
                    error,
                    extra={"action": "leftover_kept"},
                )


@contextlib.asynccontextmanager
async def obeying_signals(
    control: Stoppable, output: ThreadedOutput, grace_s: float
) -> AsyncIterator[None]:
    """Have the first signal cancel and the second kill."""
    loop = asyncio.get_running_loop()
    watching: list[asyncio.Task[None]] = []

    def told() -> None:
        if watching:
            control.stop(StopReason.CANCEL, 0)
            output.give_up()
            return
        control.stop(StopReason.CANCEL, grace_s)
        watching.append(loop.create_task(output.give_up_a_stalled_reader()))

    loop.add_signal_handler(signal.SIGINT, told)
    loop.add_signal_handler(signal.SIGTERM, told)
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
