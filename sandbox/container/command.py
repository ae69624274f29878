"""One command in a container: its output, its bounds, its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from sandbox.base import ExecRequest, ExecResult, LiveProcess
from sandbox.container import launcher
from sandbox.container.attachment import Attachment
from sandbox.container.engine import Engine
from sandbox.container.failure import ContainerEnd, conclude
from sandbox.container.frames import Channel, FrameError, FrameSplitter
from sandbox.container.output_buffer import OutputBuffer
from sandbox.container.processes import PS_ARGUMENTS, live_processes
from sandbox.env import JOB_UID
from sandbox.errors import SandboxBrokenError, SandboxError
from sandbox.time_bounds import TimeBounds

OUTPUT_END_S = 5.0
"""How long the engine may take to close the output of a container that has ended."""
READY_S = 5.0
"""How long a stop waits for the launcher, which a signal would kill before it listens."""
_SAID_BYTES = 4 << 10


class ContainerCommand:
    """A command whose container was started. Made by ``ContainerSandbox.exec``; one task sees it to its end."""

    def __init__(
        self,
        *,
        engine: Engine,
        container: str,
        attachment: Attachment,
        request: ExecRequest,
        environment: bytes,
    ) -> None:
        self._engine = engine
        self._container = container
        self._attachment = attachment
        self._environment = environment
        self._loop = asyncio.get_running_loop()
        self._output = OutputBuffer()
        self._said = b""
        self._started = asyncio.Event()
        self._signalling = asyncio.Lock()
        self._over = asyncio.Event()
        self._terminating = self._killed = False
        self._stopped = False
        self._failure: SandboxError | None = None
        self._task = self._loop.create_task(self._see_to_the_end())
        self._bounds = TimeBounds(request, self._output, may_stop=self._may_stop, stop=self.stop)

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

    async def processes(self) -> list[LiveProcess]:
        """Return what runs at this moment; see ``Command.processes``."""
        if self._task.done() or self._over.is_set():
            return []
        try:
            path = f"/containers/{self._container}/top"
            return live_processes(await self._engine.get_json(path, ps_args=PS_ARGUMENTS))
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
        user = f"{JOB_UID}:{JOB_UID}"
        try:
            return await self._engine.kill(
                self._container, launcher.STOP_NOTICE
            ) and await self._engine.run_inside(self._container, launcher.TERM_ALL, user)
        except SandboxError:
            return False

    def _may_stop(self) -> bool:
        return not (self._over.is_set() or self._terminating)

    def _note_stop(self, *, ours: bool) -> None:
        """Remember that the end is our doing, if it is; a bound that was hit before comes first."""
        if ours and not self._bounds.was_hit:
            self._stopped = True

    async def _see_to_the_end(self) -> ExecResult | SandboxError:
        feeding = self._loop.create_task(self._attachment.write(self._environment))
        reading = self._loop.create_task(self._read())
        waiting = self._loop.create_task(self._engine.wait(self._container))
        giving_up = self._loop.create_task(self._over.wait())
        try:
            await asyncio.wait({waiting, giving_up}, return_when=asyncio.FIRST_COMPLETED)
            self._over.set()
            self._output.drain()
            if not waiting.done():
                return self._failure or SandboxBrokenError("the container engine did not answer")
            await waiting
            await asyncio.wait({reading}, timeout=OUTPUT_END_S)
            facts = await self._engine.inspect(self._container)
            # The answer to a signal tells whether the end was our doing, and may come after the end.
            async with self._signalling:
                return self._result(facts)
        except SandboxError as error:
            return error
        finally:
            self._bounds.cancel()
            for task in (feeding, reading, waiting, giving_up):
                task.cancel()
            await asyncio.wait({feeding, reading, waiting, giving_up})
            self._output.end()
            await self._attachment.close()

    async def _read(self) -> None:
        splitter = FrameSplitter()
        try:
            while True:
                await self._output.room()
                data = await self._attachment.read()
                if not data:
                    return
                for channel, piece in splitter.feed(data):
                    if channel is Channel.STDOUT:
                        self._output.put(piece)
                    else:
                        self._hear(piece)
        except FrameError as error:
            self._give_up(SandboxBrokenError(f"the container engine sent nonsense: {error}"))
        finally:
            self._output.end()

    def _hear(self, piece: bytes) -> None:
        """Keep what init and launcher say; the command has no way to their channel."""
        self._said = (self._said + piece)[:_SAID_BYTES]
        if not self._started.is_set() and launcher.STARTED in self._said:
            self._started.set()

    def _result(self, facts: dict[str, dict[str, object]]) -> ExecResult | SandboxError:
        state = facts["State"]
        said = self._said.decode("utf-8", "replace")
        own = launcher.own_exit_code(said)
        outcome = conclude(
            ContainerEnd(
                exit_code=int(str(state["ExitCode"])) if own is None else own,
                oom_killed=bool(state.get("OOMKilled")),
                engine_error=str(state.get("Error") or ""),
                started=self._started.is_set(),
                said=said,
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
