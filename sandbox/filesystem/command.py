"""One command of the filesystem sandbox: its output, its end, and the end of its tree."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Protocol

from sandbox.base import ExecRequest, ExecResult, LiveProcess
from sandbox.bounds.guard import Guard
from sandbox.errors import SandboxError
from sandbox.filesystem.aftermath import Aftermath
from sandbox.filesystem.gate import Gate
from sandbox.limits import Limit
from sandbox.live_processes import describe
from sandbox.output import OutputPump
from sandbox.process import ChildProcess
from sandbox.procfs import ProcStat
from sandbox.time_bounds import TimeBounds

_KILLED = ExecResult(exit_code=137, signal=9)
LINGER_S = 0.1
"""How long the output is awaited after the main process ended, if a leftover holds the pipe."""

logger = logging.getLogger(__name__)


class Tree(Protocol):
    """All processes of one command, and how a tier gets hold of them."""

    def members(self) -> list[ProcStat]:
        """Return what lives at this moment. Not called after ``close``."""
        ...

    def terminate(self) -> bool:
        """Send TERM to every process; tell whether there was any to ask."""
        ...

    async def wait_empty(self) -> None:
        """Wait until no process is left. Called after ``terminate``."""
        ...

    async def kill(self) -> tuple[str, ...]:
        """Kill every process, the main one included; return survivors. Idempotent, bounded."""
        ...

    def close(self) -> None:
        """Give back what the tree holds. Called once, at the end."""
        ...

    def main_is_running(self) -> bool:
        """Tell whether the main process has not ended at this moment."""
        ...

    def verified_dead(self) -> bool:
        """Tell whether it is certain, not only likely, that no process is left. Asked after ``kill``."""
        ...


class FilesystemCommand:
    """A running command. Made by ``FilesystemSandbox.exec``."""

    def __init__(  # noqa: PLR0913  # the parts of one command, joined once
        self,
        *,
        child: ChildProcess,
        pump: OutputPump,
        tree: Tree,
        request: ExecRequest,
        conclude: Callable[[int, bool], ExecResult],
        aftermath: Aftermath,
        guard: Guard | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Take over a process.

        Args:
            child: The main process.
            pump: Its output.
            tree: All its processes.
            request: What was asked for; here its bounds.
            conclude: Makes the result of (status, whether we killed it), or raises a SandboxError.
            aftermath: What is looked at once the last process is dead.
            guard: Keeps its bounds; None if it has none.
            gate: What it waits for before it begins, and which ends with it; None if there is nothing.
        """
        self._child = child
        self._pump = pump
        self._tree = tree
        self._conclude = conclude
        self._aftermath = aftermath
        self._guard = guard
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._killed = asyncio.Event()
        self._lost: tuple[str, ...] = ()
        self._terminating = False
        self.verified_dead = False
        """Whether it is certain that no process of the tree is left. False until the end."""
        self._exceeded: Limit | None = None
        self._stopped = False
        self._kill_task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[ExecResult | SandboxError]
        """From the end of the main process on, or when that is given up."""
        self._bounds = TimeBounds(request, pump, may_stop=self._may_stop, stop=self.stop)
        child.when_over(self._begin_end)
        if guard is not None:
            guard.watch(tree.members, self._on_exceeded)

    def stream(self) -> AsyncIterator[bytes]:
        """Yield the merged output; see ``Command.stream``."""
        return self._pump

    async def wait(self) -> ExecResult:
        """Wait for the end of the whole tree; see ``Command.wait``."""
        outcome = (await self._ended()).result()
        if isinstance(outcome, SandboxError):
            raise outcome
        return outcome

    async def stop(self, grace_s: float) -> None:
        """Ask the whole tree to end, wait, then kill; see ``Command.stop``."""
        if self._is_over:
            return
        if not self._terminating:
            self._terminating = True
            self._note_stop()
            if not self._child.has_exited and not self._tree.terminate():
                await self.kill()
                return
        try:
            async with asyncio.timeout(grace_s):
                await self._ended()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """Kill the whole tree and return when it is gone; see ``Command.kill``."""
        if self._is_over:
            return
        self._killed.set()
        self._note_stop()
        if not self._child.has_exited:
            survivors = await self._tree.kill()
            if survivors and not self._child.has_exited:
                self._lost = survivors
                self._child.give_up()
        await self._ended()

    async def processes(self) -> list[LiveProcess]:
        """Return what runs at this moment; see ``Command.processes``."""
        if self._is_over or self._child.has_exited:
            return []
        return await asyncio.to_thread(describe, self._tree.members())

    def discard_output(self) -> None:
        """Drop output that nobody reads. Called by ``destroy`` after ``kill``."""
        self._pump.close()

    @property
    def has_exited(self) -> bool:
        """Tell whether its main process has ended."""
        return self._child.has_exited

    def show(self, line: bytes) -> bool:
        """Add a line of ours to the output; tell whether there is room for more."""
        self._pump.inject_line(line)
        return not self._pump.paused

    def _note_stop(self) -> None:
        """Remember that the end is our doing, if it is; a bound that was hit before comes first."""
        if not (self._bound_was_hit or self._is_over) and self._tree.main_is_running():
            self._stopped = True

    @property
    def _bound_was_hit(self) -> bool:
        return self._bounds.was_hit or self._exceeded is not None

    def _begin_end(self) -> None:
        self._ending = self._loop.create_task(self._see_to_the_end())

    @property
    def _is_over(self) -> bool:
        return self._child.is_over and self._ending.done()

    async def _ended(self) -> asyncio.Task[ExecResult | SandboxError]:
        """Wait for the end; return the task that has seen to it."""
        await self._child.wait_exited()
        if not self._ending.done():
            await asyncio.wait((self._ending,))
        return self._ending

    async def _see_to_the_end(self) -> ExecResult | SandboxError:
        survivors: tuple[str, ...] = ()
        try:
            if self._terminating and not self._killed.is_set():
                await self._empty_or_killed()
            if self._gate is not None:
                self._gate.drain()
            self._pump.end_after(LINGER_S)
            survivors = _told(await self._tree.kill() or self._lost)
            found = self._result()
            self.verified_dead = not survivors and self._tree.verified_dead()
            sure = self.verified_dead
            planted = () if survivors else await self._aftermath.settle(verified_dead=sure)
            result: ExecResult | SandboxError = (
                replace(found, planted=planted) if planted else found
            )
        except SandboxError as error:
            self._pump.end_after(LINGER_S)
            result = error
        finally:
            self._bounds.cancel()
            await self._dismiss()
            self._tree.close()
            self._pump.release_held()
        if isinstance(result, SandboxError):
            # What was killed before it could begin, for want of memory, is no failure of the sandbox.
            return result if self._exceeded is None else replace(_KILLED, exceeded=self._exceeded)
        if not (self._bound_was_hit or self._stopped or survivors):
            return result
        return replace(
            result,
            timed_out=self._bounds.timed_out,
            idle_timed_out=self._bounds.idle_timed_out,
            exceeded=self._exceeded,
            stopped=self._stopped,
            survivors=survivors,
        )

    async def _dismiss(self) -> None:
        """End what lives beside the command; a bound that the kernel kept counts if nothing else came first."""
        if self._gate is not None:
            await self._gate.close()
        if self._guard is not None:
            exceeded = await self._guard.end()
            if not (self._bound_was_hit or self._stopped):
                self._exceeded = exceeded

    async def _empty_or_killed(self) -> None:
        waits = [
            self._loop.create_task(self._tree.wait_empty()),
            self._loop.create_task(self._wait_killed()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _wait_killed(self) -> None:
        await self._killed.wait()

    def _result(self) -> ExecResult:
        if not self._child.has_exited:
            return _KILLED
        self._pump.drain()
        return self._conclude(self._child.reap(), self._killed.is_set() or self._terminating)

    def _may_stop(self) -> bool:
        return not (self._child.has_exited or self._terminating)

    def _on_exceeded(self, limit: Limit) -> None:
        if self._may_stop() and not self._killed.is_set():
            self._exceeded = limit
            self._kill_task = self._loop.create_task(self.kill())


def _told(survivors: tuple[str, ...]) -> tuple[str, ...]:
    """Return them, having told of them."""
    if survivors:
        logger.error(
            "Processes survived KILL",
            extra={"action": "processes_survived", "survivors": survivors},
        )
    return survivors
