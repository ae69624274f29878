"""The folder in which sources are prepared: mirrors that jobs share, and a private place for each preparation.

Several agent-runners and ``run-local`` use it at once; every lock is an flock, which dies with its holders.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent_runner.git_names import GitUrl
from sandbox.filesystem.settled import in_thread

_LOCK = ".lock"
_TRY_AGAIN_S = 0.05
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """The folder; made when it is first needed."""

    path: Path

    @property
    def known_hosts(self) -> Path:
        """Return where an operator may put keys of ssh servers."""
        return self.path / "known_hosts"

    def mirror(self, url: GitUrl) -> Path:
        """Return where the mirror of a repository lies, with its lock beside it."""
        digest = hashlib.sha256(url.text.encode()).hexdigest()[:32]
        return self._folder("mirrors") / f"{digest}.git"

    @contextlib.asynccontextmanager
    async def place(self, name: str) -> AsyncIterator[Path]:
        """Give a private folder that is removed afterwards; removes those that killed processes left."""
        work = self._folder("work")
        await in_thread(partial(_sweep, work))
        path = work / name
        fd = _claim(work / f"{name}{_LOCK}")
        try:
            path.mkdir(mode=_PRIVATE)
            yield path
        finally:
            await in_thread(partial(_remove, path))
            os.close(fd)

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        self.path.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        folder.mkdir(mode=_PRIVATE, exist_ok=True)
        return folder


@contextlib.asynccontextmanager
async def locked(path: Path, *, shared: bool = False) -> AsyncIterator[int]:
    """Hold a lock, waiting for it; gives the descriptor, which keeps it for whoever inherits it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        # A thread that waits in flock(2) could not be cancelled.
        while not _locks(fd, kind):  # noqa: ASYNC110
            await asyncio.sleep(_TRY_AGAIN_S)
        yield fd
    finally:
        os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a folder of ours, or what is in its place; there may be nothing."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        path.unlink()


def _claim(path: Path) -> int:
    """Make and lock a file; a sweep may remove it between the two."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        os.close(fd)


def _remove(path: Path) -> None:
    remove_tree(path)
    path.with_name(path.name + _LOCK).unlink(missing_ok=True)


def _sweep(work: Path) -> None:
    for lock in work.glob(f"*{_LOCK}"):
        with _opened(lock) as fd:
            if fd is not None and _locks(fd, fcntl.LOCK_EX):
                with contextlib.suppress(OSError):
                    _remove(lock.with_name(lock.name.removesuffix(_LOCK)))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _locks(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
