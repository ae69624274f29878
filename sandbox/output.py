"""The output of a command: a pipe, read by the event loop, bounded by back-pressure.

asyncio's StreamReader halves the throughput of this path, so the pipe is read with ``os.read`` from a
loop reader. When a consumer is slow the reader is removed, the pipe fills and the command blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator

from sandbox.readiness import readiness

PIPE_BYTES = 1 << 20
"""The largest pipe an ordinary user gets (pipe(7), /proc/sys/fs/pipe-max-size)."""
READ_BYTES = 256 << 10
HIGH_WATER_BYTES = 1 << 20
LOW_WATER_BYTES = 256 << 10
HELD_BYTES = 4 << 10
HELD_S = 2.0


def open_output_pipe() -> tuple[int, int]:
    """Return the read end (non-blocking) and the write end of a pipe; neither is inherited."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    return read_fd, write_fd


class OutputPump:
    """Moves the bytes of one pipe to one consumer, who iterates over it; owned by one command, used on its loop only."""

    def __init__(
        self, fd: int, loop: asyncio.AbstractEventLoop, *, held_prefixes: tuple[bytes, ...] = ()
    ) -> None:
        self._fd = fd
        self._loop = loop
        self._readiness = readiness(loop)
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._reading = False
        self._ending = False
        self._after_end = 0
        self._at_line_start = True
        self._widened = False
        self._ended = False
        self._changed = asyncio.Event()
        self._held_prefixes = held_prefixes
        self._held: bytearray | None = bytearray() if held_prefixes else None
        self.last_output = loop.time()
        """Loop time of the last byte; also moved while the consumer, not the command, is slow."""
        self._resume()

    @property
    def paused(self) -> bool:
        """Tell whether the command waits for the consumer."""
        return not self._reading and not self._ended

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece of at most 256 KiB, in order, until the output has ended.

        No generator, which the loop would have to know of.
        """
        while not self._chunks:
            if self._ended and not self._held:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk)
        if self.paused and self._buffered <= LOW_WATER_BYTES:
            self.last_output = self._loop.time()
            self._resume()
        return chunk

    def end_after(self, linger_s: float) -> None:
        """End at the latest ``linger_s`` from now, with what is in the pipe then. Called repeatedly."""
        if not self._ended and not self._ending:
            self._loop.call_later(linger_s, self._end)

    @property
    def held(self) -> bytes:
        """Return the first bytes as far as they are withheld."""
        return bytes(self._held or b"")

    def take_held(self) -> bytes:
        """Return the withheld first bytes and forget them, so that they are never streamed."""
        held = bytes(self._held or b"")
        self._held = None
        self._changed.set()
        return held

    def release_held(self) -> None:
        """Let the withheld first bytes go to the consumer, before everything else."""
        if self._held:
            self._deliver(bytes(self._held))
        self._held = None
        self._changed.set()

    def inject(self, data: bytes) -> None:
        """Add bytes of our own at the end of what was read."""
        self._deliver(data)

    def inject_line(self, line: bytes) -> None:
        """Add a line of our own between what was read, on a line of its own."""
        self._deliver(line if self._at_line_start else b"\n" + line)

    def drain(self) -> None:
        """Read what is in the pipe without waiting for more."""
        while self._reading and self._read_once():
            continue

    def close(self) -> None:
        """Drop what nobody will read. Idempotent."""
        self._finish()
        self._held = None
        self._chunks.clear()
        self._changed.set()

    def _resume(self) -> None:
        if self._ended:
            return
        self._reading = True
        if self._ending:
            self._end()
        else:
            self._readiness.watch(self._fd, self._read_once)

    def _pause(self) -> None:
        self._reading = False
        self._readiness.forget(self._fd)

    def _read_once(self) -> bool:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._finish()
            return False
        self.last_output = self._loop.time()
        if not self._widened:
            self._widen()
        self._receive(data)
        if self._buffered >= HIGH_WATER_BYTES:
            self._pause()
        return True

    def _widen(self) -> None:
        """Make the pipe large, once anything is said: most commands that end at once say nothing."""
        self._widened = True
        # The user's quota of pipe pages may be used up: a small pipe is slower, not wrong.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _end(self) -> None:
        """Read the rest of the pipe; a leftover that keeps writing gets one pipe's worth, no more."""
        self._ending = True
        while self._reading and self._after_end < PIPE_BYTES + READ_BYTES:
            before = self._buffered
            if not self._read_once():
                self._finish()
                return
            self._after_end += self._buffered - before
        if self._reading:
            self._finish()

    def _receive(self, data: bytes) -> None:
        if self._held is None:
            self._deliver(data)
            return
        if not self._held:
            self._loop.call_later(HELD_S, self.release_held)
        self._held += data
        held = bytes(self._held)
        suspicious = any(held.startswith(p) or p.startswith(held) for p in self._held_prefixes)
        if not suspicious or len(held) > HELD_BYTES:
            self.release_held()

    def _deliver(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        self._at_line_start = data.endswith(b"\n")
        self._changed.set()

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._reading = False
        self._readiness.forget(self._fd)
        os.close(self._fd)
        self._changed.set()
