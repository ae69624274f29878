"""One command in a container: its output, its bounds, its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from sandbox.base import ExecRequest, ExecResult, LiveProcess
from sandbox.container import launcher
from sandbox.container.attachment import Attachment
from sandbox.container.end_mark import Ended, EndMark
from sandbox.container.engine import Engine
from sandbox.container.failure import ContainerEnd, conclude
from sandbox.container.first_process import FirstProcess
from sandbox.container.frames import Channel, FrameError
from sandbox.container.output_buffer import OutputBuffer
from sandbox.container.processes import live_processes
from sandbox.env import JOB_UID
from sandbox.errors import SandboxBrokenError, SandboxError
from sandbox.time_bounds import TimeBounds

OUTPUT_END_S = 5.0
"""How long the engine may take to close the output of a container that has ended."""
READY_S = 5.0
"""How long a stop waits for the launcher, which a signal would kill before it listens."""
NOTICE_S = 5.0
"""How long the engine may take to learn of the end of a container."""
_SAID_BYTES = 4 << 10
_WELL = Ended(exit_code=0, short_of_memory=False)


class ContainerCommand:
    """A command whose container was started. Made by ``ContainerSandbox.exec``; one task sees it to its end."""

    def __init__(  # noqa: PLR0913  # the parts of one command, joined once
        self,
        *,
        engine: Engine,
        container: str,
        attachment: Attachment,
        request: ExecRequest,
        feeding: asyncio.Task[bool],
        end_mark: str,
        serves_more: bool = False,
        first: FirstProcess | None = None,
        is_root: bool = False,
    ) -> None:
        """Take over a container.

        Args:
            engine: Where it is.
            container: Its id.
            attachment: To its input and outputs; closed at the end, unless others may follow.
            request: The bounds.
            feeding: Writes what the launcher needs to know.
            end_mark: What the launcher writes behind the output, where it tells the end itself.
            serves_more: Whether the container is to outlive the command.
            first: Of the container, if that can be seen; closed at the end.
            is_root: Whether it runs as root.
        """
        self._engine = engine
        self._container = container
        self._attachment = attachment
        self._feeding = feeding
        self._user = "0:0" if is_root else f"{JOB_UID}:{JOB_UID}"
        self._mark = EndMark(end_mark.encode())
        self._serves_more = serves_more
        self._first = first
        self._told_well = asyncio.Event()
        """Set while the launcher has said that all is well."""
        self._is_gone = False
        self._noticing: asyncio.Task[int] | None = None
        self.others_may_follow = False
        """Whether the command has ended well and its container goes on; known when ``wait`` returns."""
        self._loop = asyncio.get_running_loop()
        self._output = OutputBuffer()
        self._said = b""
        self._started = asyncio.Event()
        self._signalling = asyncio.Lock()
        self._over = asyncio.Event()
        self._terminating = self._killed = self._stopped = False
        self._failure: SandboxError | None = None
        self._task = self._loop.create_task(self._see_to_the_end())
        self._bounds = TimeBounds(request, self._output, may_stop=self._may_stop, stop=self.stop)

    @property
    def has_begun(self) -> bool:
        """Tell whether the launcher has become the command."""
        return self._started.is_set()

    def stream(self) -> AsyncIterator[bytes]:
        """Yield the merged output; see ``Command.stream``."""
        return self._output.stream()

    async def wait(self) -> ExecResult:
        """Wait for the end of the container; see ``Command.wait``."""
        outcome = await asyncio.shield(self._task)
        if isinstance(outcome, SandboxError):
            raise outcome
        return outcome

    async def stop(self, grace_s: float) -> None:
        """Send TERM to every process, wait, then kill; see ``Command.stop``."""
        if self._task.done():
            return
        deadline = self._loop.time() + grace_s
        if not self._terminating:
            self._terminating = True
            self._output.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._terminate()
        done, _ = await asyncio.wait({self._task}, timeout=max(0.0, deadline - self._loop.time()))
        if not done:
            await self.kill()

    async def kill(self) -> None:
        """Kill the container and return when it is gone; see ``Command.kill``."""
        if self._task.done():
            return
        # Docker 20.10 hangs in kill while the output of an attached client is not taken.
        self._output.drain()
        try:
            async with self._signalling:
                while_it_ran = not self._over.is_set()
                self._killed = await self._engine.kill(self._container, "KILL") or self._killed
                self._note_stop(ours=self._killed and while_it_ran)
        except SandboxError as error:
            self._give_up(error)
        await asyncio.wait({self._task})

    async def noticed(self) -> None:
        """Wait until the engine knows of an end that was seen before it could; to remove a container that it takes for alive takes it longer.

        Called before the container is removed, also again.
        """
        if self._noticing is not None:
            patience = NOTICE_S if self._is_gone and self._failure is None else 0
            await asyncio.wait({self._noticing}, timeout=patience)
            self._noticing.cancel()
            await asyncio.gather(self._noticing, return_exceptions=True)

    async def processes(self) -> list[LiveProcess]:
        """Return what runs at this moment; see ``Command.processes``."""
        if self._task.done() or self._over.is_set():
            return []
        try:
            return await live_processes(self._engine, self._container)
        except SandboxError:
            return []  # it has ended meanwhile, and a person who asks needs no reason

    def _give_up(self, error: SandboxError) -> None:
        """End without the engine, which does not even kill: nobody knows what lives."""
        self._failure = error
        self._over.set()

    async def _terminate(self) -> None:
        ready = [
            self._loop.create_task(self._started.wait()),
            self._loop.create_task(self._over.wait()),
        ]
        await asyncio.wait(ready, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in ready:
            task.cancel()
        if not self._started.is_set():
            return
        async with self._signalling:
            while_it_ran = not self._over.is_set()
            reached = await self._term_all()
            self._note_stop(ours=reached and while_it_ran)

    async def _term_all(self) -> bool:
        """Tell the launcher and everybody else; the grace goes on if that fails, and KILL is to come."""
        try:
            return await self._engine.kill(
                self._container, launcher.STOP_NOTICE
            ) and await self._engine.run_inside(self._container, launcher.TERM_ALL, self._user)
        except SandboxError:
            return False

    def _may_stop(self) -> bool:
        return not (self._over.is_set() or self._terminating)

    def _note_stop(self, *, ours: bool) -> None:
        """Remember that the end is our doing, if it is; a bound that was hit before comes first."""
        if ours and not self._bounds.was_hit:
            self._stopped = True

    async def _see_to_the_end(self) -> ExecResult | SandboxError:
        reading = self._loop.create_task(self._read())
        waiting = self._loop.create_task(self._until_end(reading))
        giving_up = self._loop.create_task(self._over.wait())
        try:
            await asyncio.wait({waiting, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            self._over.set()
            self._output.drain()
            if not waiting.done():
                return self._failure or SandboxBrokenError("the container engine did not answer")
            await waiting
            async with self._signalling:
                if self._is_clean_end():
                    self.others_may_follow = self._serves_more
                    return self._result({"ExitCode": 0})
            if self._noticing is not None:
                await asyncio.shield(self._noticing)
            elif self._ended is not None and self._serves_more:
                # Only the end of a container tells whether the kernel killed for memory.
                await self._engine.kill(self._container, "KILL")
                await self._engine.wait(self._container)
            await asyncio.wait({reading}, timeout=OUTPUT_END_S)
            facts = await self._engine.inspect(self._container)
            # The answer to a signal tells whether the end was our doing, and may come after the end.
            async with self._signalling:
                return self._result(facts["State"])
        except SandboxError as error:
            return error
        finally:
            self._bounds.cancel()
            tasks = {self._feeding, reading, waiting, giving_up}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._output.end()
            if not self.others_may_follow:
                await self._attachment.close()
            if self._first is not None:
                self._first.close()

    async def _until_end(self, reading: asyncio.Task[None]) -> None:
        """Return when the command has ended: with its container, or before."""
        if self._serves_more:
            await asyncio.wait({reading})
            if self._ended is not None:
                return
        if self._first is None:
            await self._engine.wait(self._container)
            return
        self._noticing = self._loop.create_task(self._engine.wait(self._container))
        seen = self._loop.create_task(self._seen_to_end(self._first))
        try:
            await asyncio.wait({self._noticing, seen}, return_when=asyncio.FIRST_COMPLETED)
            if not self._is_clean_end():
                await asyncio.shield(self._noticing)
        finally:
            seen.cancel()
            await asyncio.gather(seen, return_exceptions=True)

    async def _seen_to_end(self, first: FirstProcess) -> None:
        """Return when the kernel and the launcher have told that the command ended well and nobody is left; the engine notices later."""
        await first.gone()
        self._is_gone = True
        await self._told_well.wait()

    def _is_clean_end(self) -> bool:
        over = self._serves_more or self._is_gone
        return over and self._told_well.is_set() and not self._terminating and not self._killed

    async def _read(self) -> None:
        try:
            while not (self._serves_more and self._is_told()):
                await self._output.room()
                pieces = await self._attachment.read()
                if pieces is None:
                    break
                for channel, piece in pieces:
                    if channel is Channel.STDERR:
                        self._hear(piece)
                    elif data := self._mark.feed(piece):
                        self._output.put(data)
                if self._is_told() and self._ended == _WELL:
                    self._told_well.set()
                else:
                    self._told_well.clear()
        except FrameError as error:
            self._give_up(SandboxBrokenError(f"the container engine sent nonsense: {error}"))
        finally:
            if rest := self._mark.rest():
                self._output.put(rest)
            self._output.end()

    def _is_told(self) -> bool:
        """Tell whether the launcher has said all; its two channels keep no order."""
        return self._ended is not None and self._started.is_set()

    def _hear(self, piece: bytes) -> None:
        """Keep what init and launcher say; the command has no way to their channel."""
        self._said = (self._said + piece)[:_SAID_BYTES]
        if not self._started.is_set() and launcher.STARTED in self._said:
            self._started.set()

    @property
    def _ended(self) -> Ended | None:
        return self._mark.ended

    @property
    def _heard(self) -> str:
        return self._said.decode("utf-8", "replace")

    def _result(self, state: dict[str, object]) -> ExecResult | SandboxError:
        # A container that is gone has an exit code of its own.
        ended = self._ended if self._serves_more else None
        own = launcher.own_exit_code(self._heard) if ended is None else ended.exit_code
        # The engine learns of a kill for memory a moment after it, the launcher at once.
        short = launcher.SHORT_OF_MEMORY in self._said
        short = short or (ended is not None and ended.short_of_memory is True)
        outcome = conclude(
            ContainerEnd(
                exit_code=int(str(state["ExitCode"])) if own is None else own,
                oom_killed=short or bool(state.get("OOMKilled")),
                engine_error=str(state.get("Error") or ""),
                started=self._started.is_set(),
                said=self._heard,
                killed=self._killed,
            )
        )
        if isinstance(outcome, SandboxError):
            return outcome
        return replace(
            outcome,
            timed_out=self._bounds.timed_out,
            idle_timed_out=self._bounds.idle_timed_out,
            stopped=self._stopped,
        )
