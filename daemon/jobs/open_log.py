"""One log that is in use: its file, how much of it is stored, and its hash so far. Knows nothing of other logs."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress

from daemon.errors import LeaseLostError, LogGapError

HASH_CHUNK_BYTES = 1 << 20
CLOSED = -1


class OpenLog:
    """Made by ``LogFiles``, which opens and closes the file and changes ``fd``, ``users`` and ``holders``.

    One append runs at a time, and whoever waits for it waits for the disk. Reading waits for nobody: ``length`` never
    shrinks, and bytes before it change only while the log is written over.
    """

    def __init__(self) -> None:
        self.fd = CLOSED
        self.users = 0
        """Calls under way that need the file; while there are any it stays open."""
        self.holders = 0
        """Writers for whom this must be remembered while the file is closed."""
        self.length = 0
        self.measured = False
        """``length`` is known: the file was open before."""
        self.acknowledged = 0
        """How much of it was sent and need not be sent again; less than ``length`` while it is written over."""
        self.rewritten = False
        self._sealed = False
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0

    def opened(self, fd: int) -> None:
        """Take the file that was opened."""
        if not self.measured:
            self.length = self.acknowledged = os.fstat(fd).st_size
            self.measured = True
        self.fd = fd

    def append(self, offset: int, data: memoryview) -> int:
        """Write what is not acknowledged yet, wholly or not at all, and return how much is then.

        Raises:
            LogGapError: What is acknowledged ends before ``offset``.
            LeaseLostError: Something is not acknowledged yet, and the log is sealed.
            OSError: The disk did not take it.
        """
        with self._lock:
            check_gap(self.acknowledged, offset)
            if fresh := data[self.acknowledged - offset :]:
                if self._sealed:
                    raise LeaseLostError(
                        "the attempt has ended and its log takes nothing more: "
                        "stop the attempt and drop its result"
                    )
                self._write(fresh)
            return self.acknowledged

    def seal(self) -> None:
        """Let nothing be added from here; waits for what is being written."""
        self._sealed = True
        with self._lock:
            pass

    def try_seal(self) -> bool:
        """Let no append begin from here, and tell whether none is under way, so that nothing is added any more."""
        self._sealed = True
        if not self._lock.acquire(blocking=False):
            return False
        self._lock.release()
        return True

    def rewrite(self) -> bool:
        """Have the whole log sent again; what is stored stays until it is written over. Takes a seal off.

        Returns False, and does nothing, the second time.
        """
        with self._lock:
            if self.rewritten:
                return False
            self.rewritten = True
            self._sealed = False
            self.acknowledged = 0
            self._hash = hashlib.sha256()
            self._hashed = 0
            return True

    def _write(self, data: memoryview) -> None:
        position = self.acknowledged
        try:
            for_hash = data
            while data:
                written = os.pwrite(self.fd, data, position)
                position += written
                data = data[written:]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self.fd, self.length)
            raise
        if self._hashed == self.acknowledged:
            self._hash.update(for_hash)
            self._hashed = position
        self.acknowledged = position
        self.length = max(self.length, position)

    def read(self, offset: int, limit: int) -> bytes:
        """Return up to ``limit`` stored bytes from ``offset``."""
        return os.pread(self.fd, max(0, min(limit, self.length - offset)), offset)

    def known_sha256(self) -> str | None:
        """Return the hash of the whole log if that takes neither reading nor waiting."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._hash.hexdigest() if self._hashed == self.length else None
        finally:
            self._lock.release()

    def sha256(self) -> str:
        """Return the hash of the log as long as it is now; reads what was written before the file was opened."""
        with self._lock:
            digest, hashed, length = self._hash.copy(), self._hashed, self.length
        while hashed < length:
            chunk = os.pread(self.fd, min(HASH_CHUNK_BYTES, length - hashed), hashed)
            if not chunk:
                break
            digest.update(chunk)
            hashed += len(chunk)
        with self._lock:
            if self._hashed < hashed <= self.acknowledged:
                self._hash, self._hashed = digest.copy(), hashed
        return digest.hexdigest()


def check_gap(stored: int, offset: int) -> None:
    """Check that bytes from ``offset`` join what is stored.

    Raises:
        LogGapError: They do not.
    """
    if offset > stored:
        raise LogGapError(stored)
