"""Makes the tar archive of a host folder that an engine unpacks: links stay links, nothing special goes in."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import tarfile
import threading
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import TransferRefusedError

_PIECE = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEPTH = 400
END = b"\0" * (2 * tarfile.BLOCKSIZE)
"""Of an archive, without the padding that is usual and that nobody needs."""


@dataclass(frozen=True, slots=True)
class Packer:
    """Packs one folder for one owner. ``pieces`` blocks on the disk, so it runs on a thread."""

    owner: int
    """User and group of everything, by number."""
    mode_mask: int = 0o777
    """What may remain of a mode; the bits that change who somebody is never do."""
    left_out: frozenset[str] = frozenset()
    """Files and folders that are not packed, relative to the source."""

    def pieces(self, source: Path, parents: tuple[str, ...]) -> Generator[bytes]:
        """Yield the archive of the content of a folder, below folders that are made if missing.

        Raises:
            TransferRefusedError: The source is no folder, holds something special, or cannot be read.
        """
        try:
            fd = os.open(source, _FOLDER)
        except OSError as error:
            raise TransferRefusedError(f"{source} cannot be copied: {error.strerror}") from error
        try:
            for depth in range(2, len(parents) + 1):
                yield self._header("/".join(parents[:depth]), tarfile.DIRTYPE, mode=0o755)
            yield from self._folder(fd, "/".join(parents), source, "")
        finally:
            os.close(fd)
        yield END

    def _folder(self, fd: int, name: str, path: Path, inner: str) -> Generator[bytes]:
        """Pack a folder whose path below the source is ``inner``, with a slash at its end."""
        if inner.count("/") > _DEPTH:
            raise TransferRefusedError(f"{path} lies too deep to be copied")
        for entry in sorted(os.listdir(fd)):
            if inner + entry in self.left_out:
                continue
            below, target = path / entry, f"{name}/{entry}" if name else entry
            try:
                yield from self._entry(fd, inner + entry, target, below)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue  # removed while it was copied
                raise TransferRefusedError(f"{below} cannot be copied: {error.strerror}") from error

    def _entry(self, fd: int, inner: str, target: str, path: Path) -> Generator[bytes]:
        entry = path.name
        facts = os.stat(entry, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISLNK(facts.st_mode):
            link = os.readlink(entry, dir_fd=fd)
            yield self._header(target, tarfile.SYMTYPE, mode=0o777, link=link)
        elif stat.S_ISDIR(facts.st_mode):
            below = os.open(entry, _FOLDER, dir_fd=fd)
            try:
                yield self._header(
                    target, tarfile.DIRTYPE, mode=facts.st_mode, mtime=facts.st_mtime
                )
                yield from self._folder(below, target, path, f"{inner}/")
            finally:
                os.close(below)
        elif stat.S_ISREG(facts.st_mode):
            yield from self._file(fd, entry, target)
        else:
            raise TransferRefusedError(f"{path} is no file, folder or link")

    def _file(self, fd: int, entry: str, target: str) -> Generator[bytes]:
        with open(os.open(entry, _FILE, dir_fd=fd), "rb", buffering=0) as file:  # noqa: PTH123  # by descriptor
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise TransferRefusedError(f"{target} changed while it was copied")
            yield self._header(
                target,
                tarfile.REGTYPE,
                mode=facts.st_mode,
                mtime=facts.st_mtime,
                size=facts.st_size,
            )
            left = facts.st_size
            while left:
                # A file that shrinks meanwhile is filled up: its header is on its way already.
                piece = file.read(min(left, _PIECE)) or b"\0" * min(left, _PIECE)
                left -= len(piece)
                yield piece
            yield b"\0" * (-facts.st_size % tarfile.BLOCKSIZE)

    def _header(  # noqa: PLR0913  # the fields of one header
        self,
        name: str,
        kind: bytes,
        *,
        mode: int,
        mtime: float = 0,
        size: int = 0,
        link: str = "",
    ) -> bytes:
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.linkname = kind, size, link
        entry.mode, entry.mtime = mode & self.mode_mask, int(mtime)
        entry.uid = entry.gid = self.owner
        # The GNU format carries names of any bytes and any length; PAX wants UTF-8.
        return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


class Packing:
    """An archive that is being made on threads, for one reader on an event loop."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()
        """A reader that was cancelled leaves a thread behind for a moment."""

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the archive, in pieces worth the way to a thread and back."""
        while piece := await asyncio.to_thread(self._more):
            yield piece

    def close(self) -> None:
        """Let go of every file. Blocks until the thread that packs has stopped."""
        with self._lock:
            self._pieces.close()

    def _more(self) -> bytes:
        gathered = bytearray()
        with self._lock:
            for piece in self._pieces:
                gathered += piece
                if len(gathered) >= _PIECE:
                    break
        return bytes(gathered)
