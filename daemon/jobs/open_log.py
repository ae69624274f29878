"""One log that is in use: its file, how much of it is stored, and its hash so far. Knows nothing of other logs."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress

HASH_CHUNK_BYTES = 1 << 20


class OpenLog:
    """Made by ``LogFiles``, which opens and closes the file; while ``users`` is not 0 it stays open.

    ``lock`` is held while bytes are written, so whoever takes it may wait for the disk. Reading needs no lock: bytes
    before ``length`` never change.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.lock = threading.Lock()
        self.users = 0
        """Calls under way; changed by ``LogFiles`` only."""
        self.length = os.fstat(fd).st_size
        self._hash = hashlib.sha256()
        self._hashed = 0

    def append(self, data: memoryview) -> None:
        """Write at the end, wholly or not at all. Called with ``lock`` held."""
        position = self.length
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
        if self._hashed == self.length:
            self._hash.update(for_hash)
            self._hashed = position
        self.length = position

    def read(self, offset: int, limit: int) -> bytes:
        """Return up to ``limit`` stored bytes from ``offset``."""
        return os.pread(self.fd, max(0, min(limit, self.length - offset)), offset)

    def known_sha256(self) -> str | None:
        """Return the hash of the whole log if that takes neither reading nor waiting."""
        if not self.lock.acquire(blocking=False):
            return None
        try:
            return self._hash.hexdigest() if self._hashed == self.length else None
        finally:
            self.lock.release()

    def sha256(self) -> str:
        """Return the hash of the log as long as it is now; reads what was written before the file was opened."""
        with self.lock:
            digest, hashed, length = self._hash.copy(), self._hashed, self.length
        while hashed < length:
            chunk = os.pread(self.fd, min(HASH_CHUNK_BYTES, length - hashed), hashed)
            if not chunk:
                break
            digest.update(chunk)
            hashed += len(chunk)
        with self.lock:
            if hashed > self._hashed:
                self._hash, self._hashed = digest.copy(), hashed
        return digest.hexdigest()
