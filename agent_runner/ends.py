"""The ends of attempts that printed nothing, in one file: a place for each, until the server has it.

Most short jobs print nothing, and to make, fill and remove a file costs fifteen times what a write into one that is open
does. A place is filled by one write and emptied by one: at whatever moment this process dies, it holds a whole record, whose checksum
says so, or none. The file lasts for as long as anything runs; one that a dead agent-runner left is read at the next start.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".ends"
PLACE_BYTES = 2048
"""A larger end is written as if there were a log."""
_LENGTH_BYTES = 4
_HEADER_BYTES = _LENGTH_BYTES + 4
_NO_FILE = -1


class Ends:
    """One file of them. Used on one event loop."""

    def __init__(self, folder: Path) -> None:
        """Begin without a file."""
        self._folder = folder
        self._path = ""
        self._fd = _NO_FILE
        self._count = 0
        self._empty: list[int] = []

    def put(self, record: bytes) -> int | None:
        """Store an end; return its place, or None if it is too large.

        Raises:
            OSError: The disk is full or broken.
        """
        if len(record) > PLACE_BYTES - _HEADER_BYTES:
            return None
        if self._fd == _NO_FILE:
            self._make()
        if not self._empty:
            self._empty.append(self._count)
            self._count += 1
        _write(self._fd, _header(record) + record, self._empty[-1])
        return self._empty.pop()

    def clear(self, place: int) -> None:
        """Forget an end: the server has it, or does not want it. One that the disk keeps is told again at the next start, in vain."""
        with contextlib.suppress(OSError):
            _write(self._fd, bytes(_HEADER_BYTES), place)
            self._empty.append(place)

    def rest(self) -> None:
        """Remove the file if no end is in it; called when nothing runs, and harmless at any moment."""
        if self._fd != _NO_FILE and len(self._empty) == self._count:
            os.close(self._fd)
            self._fd = _NO_FILE
            self._count = 0
            self._empty.clear()
            # One that cannot be removed is found empty at the next start.
            with contextlib.suppress(OSError):
                Path(self._path).unlink()

    def close(self) -> None:
        """Let go of the file, and leave it for the next start if an end is in it. Idempotent."""
        self.rest()
        if self._fd != _NO_FILE:
            os.close(self._fd)
            self._fd = _NO_FILE

    def stored(self) -> dict[int, bytes]:
        """Return the ends that are in the file, by their places."""
        found = {}
        for place in range(self._count):
            data = os.pread(self._fd, PLACE_BYTES, place * PLACE_BYTES)
            length = int.from_bytes(data[:_LENGTH_BYTES])
            record = data[_HEADER_BYTES : _HEADER_BYTES + length]
            if length and _header(record) == data[:_HEADER_BYTES]:
                found[place] = record
        return found

    @classmethod
    def leftovers(cls, folder: Path) -> Iterator[Ends]:
        """Yield the files that an earlier process left and that hold any end; removes the others. Called once, at start."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if not path.is_file():
                continue
            left = cls(folder)
            left._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            left._path = str(path)
            left._count = -(-os.fstat(left._fd).st_size // PLACE_BYTES)
            stored = left.stored()
            left._empty = [place for place in range(left._count) if place not in stored]
            left.rest()
            if stored:
                yield left

    def _make(self) -> None:
        # Of no other process: one that runs no more may have left its own, and its file may be moved here.
        path = f"{self._folder}/{os.urandom(8).hex()}{SUFFIX}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd, self._path = os.open(path, flags, 0o600), path


def _header(record: bytes) -> bytes:
    return len(record).to_bytes(_LENGTH_BYTES) + zlib.crc32(record).to_bytes(4)


def _write(fd: int, data: bytes, place: int) -> None:
    if os.pwrite(fd, data, place * PLACE_BYTES) != len(data):
        raise OSError(f"a write of {len(data)} bytes was cut short")
