"""The masked log of one attempt on the agent-runner's disk, from the first byte until the server has it all.

The one buffer between a command and the server: writing never waits for the network, a reader takes bytes from
any offset, so a lost connection costs nothing and memory stays flat whatever the job prints.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from agent_runner.outcome import LogSummary

MAX_AHEAD_BYTES = 16 << 20
"""How far a command may run ahead of a server that is there; then it is stopped by back-pressure."""


class Spool:
    """One writer (the executor) and one reader (the log shipper) on one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        self._digest = hashlib.sha256()
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.length = 0
        self.acknowledged = 0
        self.closed = False
        """No byte will be added."""
        self.paced = True
        """The server is there, so the command must not run far ahead of it."""

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            OSError: The disk is full or broken; nothing of ``data`` counts.
        """
        view = memoryview(data)
        done = 0
        while done < len(view):
            done += os.pwrite(self._fd, view[done:], self.length + done)
        self._digest.update(data)
        self.length += len(data)
        self._changed.set()
        self._pace()

    async def drained(self) -> None:
        """Wait until the command may go on."""
        await self._drained.wait()

    def read(self, offset: int, limit: int) -> bytes:
        """Return bytes from an offset; empty at the end."""
        return os.pread(self._fd, min(limit, self.length - offset), offset)

    def acknowledge(self, offset: int) -> None:
        """Note that the server has everything before an offset."""
        self.acknowledged = max(self.acknowledged, offset)
        self._changed.set()
        self._pace()

    def set_paced(self, paced: bool) -> None:
        """Say whether the server is there; while it is away the spool takes what comes."""
        self.paced = paced
        self._pace()

    def close_writing(self) -> None:
        """Say that no byte will be added; wakes the reader."""
        self.closed = True
        self._changed.set()

    def wake(self) -> None:
        """Wake the reader, whose connection has changed."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait for a write, an acknowledgement or the end."""
        await self._changed.wait()
        self._changed.clear()

    def summary(self) -> LogSummary:
        """Return length and digest of all that was written."""
        return LogSummary(length=self.length, sha256=self._digest.hexdigest())

    def remove(self) -> None:
        """Let go of the file; nothing can be read after it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._path.unlink(missing_ok=True)

    def _pace(self) -> None:
        if self.paced and self.length - self.acknowledged > MAX_AHEAD_BYTES:
            self._drained.clear()
        else:
            self._drained.set()
