"""Moves what a command prints through its masking into the log; what takes long to mask, on a thread.

Most output is searched sooner than it is handed to a thread and back, and a thread that searches beside a busy loop
waits for the interpreter more than it works: with ten secrets a flood is a sixth slower with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from sandbox.masking.commands import COMMAND, holds_command
from sandbox.masking.stream import Stream

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SLOW_S = 0.002
"""Of processor time for one piece; those behind it are masked on a thread then, so that other jobs get on."""
CALM_BYTES = 4 << 20
"""When so much has been quick again, it is masked on the loop again."""


class LogPump:
    """The output of one command. ``run`` once."""

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        write: Callable[[bytes], None],
        drained: Callable[[], Awaitable[None]],
    ) -> None:
        """Pass output through a stream to ``write``, and wait for ``drained`` before more is read.

        The stream is not opened for a command that says nothing.
        """
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._write = write
        self._drained = drained
        self._slow_bytes = 0
        """Of what comes next, to be masked on the thread."""
        self._last = b""
        """Of what came before, what could be the beginning of a command."""
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Move everything, in order. Whatever ``chunks`` or ``write`` raise is raised at once.

        When the output fails, what was read before is written.
        """
        try:
            async for chunk in chunks:
                if self._stream is None:
                    self._stream = self._open_stream()
                if self._may_spell(chunk) or self._slow_bytes > 0:
                    masked = await self._aside(self._stream, chunk)
                else:
                    masked = self._feed(self._stream, chunk)
                self._write(masked)
                await self._drained()
            if self._stream is not None:
                self._write(self._stream.close())
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=False)

    def _may_spell(self, chunk: bytes) -> bool:
        """Tell whether a piece may hold a value that has to be spelled, which takes long, or its beginning."""
        if not holds_command(chunk) and COMMAND not in self._last + chunk[: len(COMMAND)]:
            return False
        self._slow_bytes = CALM_BYTES
        return True

    def _feed(self, stream: Stream, chunk: bytes) -> bytes:
        began = time.thread_time()
        masked = stream.feed(chunk)
        self._last = (self._last + chunk[1 - len(COMMAND) :])[1 - len(COMMAND) :]
        self._slow_bytes = max(0, self._slow_bytes - len(chunk))
        if time.thread_time() - began > SLOW_S:
            self._slow_bytes = CALM_BYTES
        return masked

    async def _aside(self, stream: Stream, chunk: bytes) -> bytes:
        if self._thread is None:
            # Few jobs need it, and an agent-runner that rests is to be small.
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

            self._thread = ThreadPoolExecutor(1, "log")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._feed, stream, chunk)
