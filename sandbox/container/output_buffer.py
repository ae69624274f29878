"""The output of a container on its way from the engine to one reader, bounded by back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

HIGH_WATER_BYTES = 512 << 10
"""The engine holds about 1 MiB more."""
LOW_WATER_BYTES = 128 << 10
DRAIN_BYTES = 16 << 20
"""Held of a command that is being ended; the rest is dropped, because an engine whose output nobody takes hangs (moby 41827)."""


class OutputBuffer:
    """Bytes that have come and were not read yet; one producer, one consumer, one loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._dropped = 0
        self._draining = False
        self._ended = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.last_output = self._loop.time()
        """Loop time of the last byte, or of the moment when the consumer made room."""

    @property
    def paused(self) -> bool:
        """Tell whether the command waits for the consumer."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until more may be put in."""
        await self._room.wait()

    def put(self, data: bytes) -> None:
        """Take a piece. While draining, what is too much is counted and dropped."""
        self.last_output = self._loop.time()
        if self._ended:
            return
        if self._draining and self._held + len(data) > DRAIN_BYTES:
            self._dropped += len(data)
            return
        self._chunks.append(data)
        self._held += len(data)
        if self._held >= HIGH_WATER_BYTES and not self._draining:
            self._room.clear()
        self._changed.set()

    def drain(self) -> None:
        """Take everything from here on, so that whoever writes is not held back. Idempotent."""
        self._draining = True
        self._room.set()

    def end(self) -> None:
        """Note that nothing more comes. Idempotent."""
        if not self._ended and self._dropped:
            self._chunks.append(b"\n[runner: %d bytes of output were dropped]\n" % self._dropped)
        self._ended = True
        self._room.set()
        self._changed.set()

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the pieces in order until the end."""
        while True:
            if self._chunks:
                chunk = self._chunks.popleft()
                self._held -= len(chunk)
                if self.paused and self._held <= LOW_WATER_BYTES:
                    self.last_output = self._loop.time()
                    self._room.set()
                yield chunk
            elif self._ended:
                return
            else:
                self._changed.clear()
                await self._changed.wait()
