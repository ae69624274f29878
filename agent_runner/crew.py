"""Runs several jobs here at once, without daemon or server: the engine of pipelines and of triggered jobs.

What ``one_shot`` is for one job: the same executor and sandboxes, one provider, and signals that stop all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.executor import AttemptRequest, AttemptRun
from agent_runner.job_spec import JobSpec
from agent_runner.one_shot import (
    OneShot,
    ThreadedOutput,
    obeying_signals,
    open_sandboxes,
    own_name,
    put_outputs,
    sandbox_found,
    staged_outputs,
    sweep,
)
from agent_runner.outcome import LogSummary, Outcome
from agent_runner.outputs.held_here import HeldOutputs, JobHands, held_outputs
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.secret_source import SecretSource
from sandbox.base import Capabilities, SandboxProvider
from sandbox.errors import SandboxError

MAX_LINE_BYTES = 64 << 10
"""Of a line that has no end yet: it is written as it is, so that nobody waits for it for ever."""


class PrefixedLog:
    """A LogWriter of one job among several: each line has the job's name before it."""

    def __init__(self, output: ThreadedOutput, prefix: str) -> None:
        """Write to an output that others use too; an empty prefix leaves the bytes as they are."""
        self._output = output
        self._prefix = prefix.encode()
        self._digest = hashlib.sha256()
        self._length = 0
        self._line = b""

    def write(self, data: bytes) -> None:
        """Take bytes, in order; only whole lines go on."""
        self._digest.update(data)
        self._length += len(data)
        if not self._prefix:
            self._output.write(data)
            return
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > MAX_LINE_BYTES:
            lines, self._line = [*lines, self._line], b""
        if lines:
            self._output.write(b"".join(self._prefix + line + b"\n" for line in lines))

    async def drained(self) -> None:
        """Wait until there is room for more."""
        await self._output.drained()

    def summary(self) -> LogSummary:
        """Return length and digest of all that was written."""
        return LogSummary(length=self._length, sha256=self._digest.hexdigest())

    def close(self) -> None:
        """Write a last line that has no end; called once."""
        if self._line:
            self._output.write(self._prefix + self._line + b"\n")
            self._line = b""


class Crew:
    """Attempts that run at once; made by ``crew``."""

    def __init__(self, shot: OneShot, provider: SandboxProvider, output: ThreadedOutput) -> None:
        self._shot = shot
        self._provider = provider
        self._output = output
        self._controls: set[AttemptControl] = set()
        self._stopped: tuple[StopReason, float] | None = None
        self.stopping = asyncio.Event()
        """Set when somebody wants all of it to end: nothing more is to be started."""

    async def run(  # noqa: PLR0913, PLR0917 - what an attempt is made of
        self,
        job_id: str,
        attempt: int,
        spec: JobSpec,
        secrets: SecretSource,
        prefix: str,
        hands: JobHands,
    ) -> Outcome:
        """Run one attempt to its end and clean up after it; called for many at once."""
        log = PrefixedLog(self._output, prefix)
        async with staged_outputs(self._shot, job_id, spec) as place:
            request = AttemptRequest(
                job_id=job_id,
                attempt=attempt,
                spec=spec,
                source_dir=self._shot.source_dir,
                outputs=place,
                inputs=hands,
            )
            with self._controlled() as control:
                run = AttemptRun(self._provider, request, secrets, log, control, self._shot.consent)
                try:
                    outcome = await run.run()
                    await self._put_outputs(spec, outcome, place, log, hands)
                    return outcome
                finally:
                    log.close()
                    # The provider tries again when it is closed.
                    with contextlib.suppress(SandboxError):
                        await run.clean_up()

    def held_outputs(self, name: str) -> AbstractAsyncContextManager[HeldOutputs]:
        """Give a place for what jobs of one run leave for others of it; called once per run."""
        return held_outputs(self._shot.source_dir, name)

    async def _put_outputs(
        self,
        spec: JobSpec,
        outcome: Outcome,
        place: OutputsPlace | None,
        log: PrefixedLog,
        hands: JobHands,
    ) -> None:
        """Put the outputs of one job into a folder of its name; what cannot be is said, and keeps no other job."""
        if self._shot.outputs_dir is None or place is None:
            return
        folder = self._shot.outputs_dir / hands.folder_of(spec.name)
        try:
            await put_outputs(outcome, place, folder)
        except OSError as error:
            text = f"runner: outputs: {error.filename or folder}: {error.strerror}\n"
            log.write(text.encode("utf-8", "replace"))
        await hands.keep(outcome.outputs, place)

    def stop(self, reason: StopReason, grace_s: float) -> None:
        """Ask for the end of all that runs, and let nothing start; repeating it can only make it more urgent."""
        self._stopped = (reason, grace_s)
        self.stopping.set()
        for control in self._controls:
            control.stop(reason, grace_s)

    @contextlib.contextmanager
    def _controlled(self) -> Iterator[AttemptControl]:
        control = AttemptControl()
        if self._stopped is not None:
            control.stop(*self._stopped)
        self._controls.add(control)
        try:
            yield control
        finally:
            self._controls.discard(control)


@contextlib.asynccontextmanager
async def crew(
    shot: OneShot, write: Callable[[bytes], None], on_start: Callable[[Capabilities], None]
) -> AsyncIterator[Crew]:
    """Open the sandboxes for several jobs; called once per process, on its own loop.

    Args:
        shot: Where they run; its job and its secrets are not used.
        write: Gets the masked output of all of them, from a thread.
        on_start: Is told what the sandboxes will be.

    Raises:
        OSError: The output could not be written; all jobs were cancelled.
    """
    made: list[Crew] = []

    def broken() -> None:
        for one in made:
            one.stop(StopReason.CANCEL, shot.cancel_grace_s)

    output = ThreadedOutput(write, broken)
    await sweep(shot)
    provider = open_sandboxes(shot, own_name(os.getpid()))
    made.append(Crew(shot, provider, output))
    async with obeying_signals(made[0], output, shot.cancel_grace_s):
        try:
            on_start(await sandbox_found(provider))
            yield made[0]
        finally:
            await provider.close()
            with contextlib.suppress(OSError):  # others have theirs in it
                shot.workspaces.rmdir()
            await output.flush()
    if output.error is not None:
        raise output.error
