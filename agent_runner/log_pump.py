"""Moves what a command prints through its masking into the log, much of it on a thread.

A search in much output lets other threads run, so the loop reads and ships meanwhile; and the next piece waits behind
the search for the one before, so that the thread never waits for the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from sandbox.masking.commands import COMMAND
from sandbox.masking.stream import Stream

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MIN_THREAD_BYTES = 32 << 10
"""Less output at once is masked sooner than it is handed to a thread and back."""


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
        self._feed: Callable[[bytes], bytes]
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._write = write
        self._drained = drained
        self._thread: ThreadPoolExecutor | None = None

    async def run(self, chunks: AsyncIterator[bytes]) -> None:
        """Move everything, in order. Whatever ``chunks`` or ``write`` raise is raised at once.

        When the output fails, what was read before is written.
        """
        async for chunk in chunks:
            if self._stream is None:
                self._stream = self._open_stream()
                self._feed = self._stream.feed
            if _takes_long(chunk):
                await self._run_aside(chunk, chunks)
                break
            self._write(self._feed(chunk))
            await self._drained()
        if self._stream is not None:
            self._write(self._stream.close())

    async def _run_aside(self, first: bytes, chunks: AsyncIterator[bytes]) -> None:
        """Move a piece that takes long and everything behind it."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._move(first, chunks, group)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=False)

    async def _move(
        self, first: bytes, chunks: AsyncIterator[bytes], group: asyncio.TaskGroup
    ) -> None:
        last = group.create_task(self._aside(first, None))
        try:
            async for chunk in chunks:
                before = last
                if before.done() and not _takes_long(chunk):
                    before.result()
                    self._write(self._feed(chunk))
                else:
                    last = group.create_task(self._aside(chunk, before))
                    await before
                await self._drained()
        finally:
            await last

    async def _aside(self, chunk: bytes, before: asyncio.Task[None] | None) -> None:
        """Mask a piece on the thread, and write it unless the one before it could not be written."""
        if self._thread is None:
            # Few jobs print so much, and an agent-runner that rests is to be small.
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

            self._thread = ThreadPoolExecutor(1, "log")
        loop = asyncio.get_running_loop()
        # There is one thread, so what is fed to the stream is in order too.
        masked = await loop.run_in_executor(self._thread, self._feed, chunk)
        if before is not None:
            await before
        self._write(masked)


def _takes_long(chunk: bytes) -> bool:
    """Tell whether a piece is searched on a thread: it is long, or may hold a value that has to be spelled."""
    return len(chunk) >= MIN_THREAD_BYTES or COMMAND in chunk
