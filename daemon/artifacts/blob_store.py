"""A folder of contents named by their SHA-256: what is equal is stored once in each project.

Not once for all of them: who knows a digest would have the content of another project, and who asks for it learns whether
somebody has it.

A content is whole or not there: it is written beside, synced, and renamed. What nothing refers to is removed when it has
rested for ``GRACE_S``; ``missing`` renews that, so a content that was found here can be referred to in the next moments.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from agent_runner.project_names import DEFAULT_PROJECT
from daemon.errors import ArtifactNotWrittenError, StoreUnusableError, UsageError

SHA256 = re.compile(r"[0-9a-f]{64}")
GRACE_S = 3600.0
"""How long a content stays that nothing refers to: its attempt may be about to end."""
BATCH = 500
_INCOMING = "incoming"
_PROJECTS = "projects"
_PRIVATE = 0o700
_NOT_OPEN = -1
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class BlobStore:
    """The contents in one folder, made with the first of them. Calls come from any thread and block for the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        """Held for a moment between a look at a content and what follows from it."""

    def open(self) -> None:
        """Remove what an earlier server did not get wholly; called once, before any other method."""
        incoming = self._root / _INCOMING
        for path in incoming.iterdir() if incoming.is_dir() else ():
            path.unlink(missing_ok=True)

    def missing(self, project: str, digests: Iterable[str]) -> list[str]:
        """Return those that are not here; the others stay at least for ``GRACE_S``.

        Raises:
            UsageError: One is no SHA-256 in lower-case hexadecimal.
        """
        return [sha256 for sha256 in digests if not self._renew(self._path(project, sha256))]

    def begin(self, project: str, sha256: str, size: int) -> IncomingBlob:
        """Return the writer of a content. Touches no disk.

        Raises:
            UsageError: The digest is none, or the size is negative.
        """
        if size < 0:
            raise UsageError("size_bytes must not be negative")
        path = self._root / _INCOMING / secrets.token_hex(8)
        return IncomingBlob(path, self._path(project, sha256), size)

    def read(self, project: str, sha256: str, offset: int, limit: int) -> bytes:
        """Return up to ``limit`` bytes from ``offset``; fewer only at the end.

        Raises:
            StoreUnusableError: The content is not here, or the disk does not give it.
        """
        try:
            fd = os.open(self._path(project, sha256), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return os.pread(fd, limit, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise StoreUnusableError(
                f"the content {sha256} of an output cannot be read: {error.strerror}"
            ) from error

    def resting(self, now_s: float) -> Iterator[list[Path]]:
        """Yield the files of contents that were not renewed for ``GRACE_S``, some hundred at once; they are named by digest."""
        found = (path for path in self._contents() if _rests(path, now_s))
        while batch := list(islice(found, BATCH)):
            yield batch

    def remove_resting(self, paths: Iterable[Path], now_s: float) -> int:
        """Remove contents to which nothing refers, unless they were renewed meanwhile; return how many."""
        removed = 0
        for path in paths:
            with self._lock:
                if _rests(path, now_s):
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def _renew(self, path: Path) -> bool:
        with self._lock:
            try:
                os.utime(path, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def _contents(self) -> Iterator[Path]:
        return (self._root / _PROJECTS).glob(f"*/??/{'[0-9a-f]' * 64}")

    def _path(self, project: str, sha256: str) -> Path:
        if not SHA256.fullmatch(sha256):
            raise UsageError("a digest must be 64 lower-case hexadecimal digits")
        return self._root / _PROJECTS / (project or DEFAULT_PROJECT) / sha256[:2] / sha256


class IncomingBlob:
    """One content that arrives: ``write`` until that says that it is whole, ``keep``; ``close`` in any case, also meanwhile."""

    def __init__(self, path: Path, target: Path, size: int) -> None:
        self._path = path
        self._target = target
        self._left = size
        self._fd = _NOT_OPEN
        self._closed = False
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        """Held while something is written: a thread goes on when who waits for it is cancelled."""

    @property
    def sha256(self) -> str:
        """Return the digest that the content must have."""
        return self._target.name

    def write(self, data: bytes) -> bool:
        """Take the next bytes; tell whether they were the last.

        Raises:
            UsageError: They are more than was said, or the content is not what its digest says.
            ArtifactNotWrittenError: The disk is full or broken.
        """
        self._left -= len(data)
        if self._left < 0:
            raise UsageError("more data than size_bytes says")
        self._digest.update(data)
        if not self._left and self._digest.hexdigest() != self.sha256:
            raise UsageError("the data is not what sha256 says")
        with self._writing():
            if self._fd == _NOT_OPEN:
                for folder in reversed(self._path.parents[:2]):  # mkdir gives its mode to no parent
                    folder.mkdir(mode=_PRIVATE, exist_ok=True)
                self._fd = os.open(self._path, _NEW_FILE, 0o600)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        return not self._left

    def keep(self) -> None:
        """Put the whole content in its place, where it outlives the host. Waits for the disk: several at once share that.

        Raises:
            ArtifactNotWrittenError: The disk is full or broken.
        """
        with self._writing():
            os.fsync(self._fd)
            for folder in reversed(self._target.parents[:3]):
                folder.mkdir(mode=_PRIVATE, exist_ok=True)
            self._path.rename(self._target)
            _sync_folder(self._target.parent)

    def close(self) -> None:
        """Let go; removes what is not whole. Idempotent."""
        with self._lock:
            self._closed = True
            if self._fd != _NOT_OPEN:
                os.close(self._fd)
                self._fd = _NOT_OPEN
                self._path.unlink(missing_ok=True)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._lock:
                self._refuse_closed()
                yield
        except OSError as error:
            raise ArtifactNotWrittenError(
                f"the job server cannot store outputs ({error.strerror}): "
                f"make room below {self._path.parent.parent}"
            ) from error


def _rests(path: Path, now_s: float) -> bool:
    try:
        return now_s - path.lstat().st_mtime > GRACE_S
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
