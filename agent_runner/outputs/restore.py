"""Puts outputs into a folder of the host: whole, with their modes, and never outside of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent_runner.outcome import OutputFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 << 20


class OutputsFolder:
    """A folder that gets outputs; it is made when the first one comes. It may be a link, nothing below it is followed."""

    def __init__(self, path: Path, *, replace: bool) -> None:
        """Make nothing yet.

        Args:
            path: The folder.
            replace: Files of the same names are replaced; they are in the way otherwise.
        """
        self._path = path
        self._replace = replace

    def check(self, files: Iterable[OutputFile]) -> None:
        """Look for what is in the way, before anything is written.

        Raises:
            OSError: Something is, or a name leaves the folder; names it.
        """
        for file in files:
            parts = parts_of(file.name)
            if not self._replace and os.path.lexists(self._path.joinpath(*parts)):
                raise OSError(
                    errno.EEXIST, "exists already; --force replaces it", str(self._path / file.name)
                )

    def put(self, file: OutputFile, pieces: Iterable[bytes]) -> None:
        """Write one file; it appears when it is whole and has the digest that was recorded.

        Raises:
            OSError: It cannot be written, is in the way, or the content is another; names it.
        """
        *folders, last = parts_of(file.name)
        try:
            with self._opened(folders) as folder:
                self._write(folder, last, file, pieces)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path / file.name)) from error

    def _write(self, folder: int, last: str, file: OutputFile, pieces: Iterable[bytes]) -> None:
        part = f".runner-{secrets.token_hex(8)}"
        fd = os.open(part, _NEW_FILE, 0o600, dir_fd=folder)
        try:
            try:
                _fill(fd, file, pieces)
                os.fchmod(fd, file.mode & 0o777)
            finally:
                os.close(fd)
            if not self._replace:
                _refuse_existing(folder, last)
            os.rename(part, last, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(part, dir_fd=folder)
            raise

    @contextlib.contextmanager
    def _opened(self, names: list[str]) -> Iterator[int]:
        self._path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
                below = os.open(name, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)


def content_of(path: Path) -> Iterator[bytes]:
    """Yield a file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            yield piece


def _fill(fd: int, file: OutputFile, pieces: Iterable[bytes]) -> None:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]
    if digest.hexdigest() != file.sha256:
        raise OSError(errno.EIO, "the content is not the one that was recorded")


def _refuse_existing(folder: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        raise OSError(errno.EEXIST, "exists already; --force replaces it")


def parts_of(name: str) -> list[str]:
    """Return the folders of an output and its name.

    Raises:
        OSError: It is no path below a folder.
    """
    parts = name.split("/")
    if not all(parts) or {".", ".."} & {*parts} or "\0" in name:
        raise OSError(errno.EINVAL, "is no path below the folder", name)
    return parts
