"""The folder of a store: who may own it, and how its one file is read and replaced without ever being half there."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from daemon.errors import DamagedSecretStoreError, NoSecretStoreError, SecretStoreError, UsageError
from daemon.secrets.given_file import write_all
from daemon.secrets.store.folder_lock import LOCK_TIMEOUT_S, locked
from daemon.secrets.store.sealed_file import MAX_FILE_BYTES

FILE_NAME = "secrets.json"
_TEMPORARY_PREFIX = ".secrets-"
_TEMPORARY_SUFFIX = ".tmp"
_OTHERS = 0o077


class StoreFolder:
    """One folder with one store. Holds nothing open between calls; every method may be called from any process.

    Raises of every method beside its own: UsageError for a folder or file that is a link or belongs to somebody else,
    SecretStoreError where the file system refuses.
    """

    def __init__(
        self,
        root: Path,
        *,
        allow_foreign_owner: bool = False,
        warn: Callable[[str], None] | None = None,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        self.root = root
        self.file = root / FILE_NAME
        self._allow_foreign_owner = allow_foreign_owner
        self._warn = warn
        self._lock_timeout_s = lock_timeout_s
        self._warned: set[Path] = set()

    def make(self) -> None:
        """Create the folder with mode 0700, or take that from others who may look into it."""
        with self._explained():
            self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.root.mkdir(mode=0o700)
                _sync_names(self.root.parent)
                _sync_names(self.root.parent.parent)
        with self._opened() as dir_fd:
            if os.fstat(dir_fd).st_mode & _OTHERS:
                os.fchmod(dir_fd, 0o700)

    def exists(self) -> bool:
        """Tell whether there is a file of that name, whatever it holds."""
        with contextlib.suppress(NoSecretStoreError), self._opened() as dir_fd:
            return FILE_NAME in _names(dir_fd)
        return False

    def read(self) -> bytes:
        """Return the whole file.

        Raises:
            NoSecretStoreError: There is none.
            DamagedSecretStoreError: It is larger than a store can be, or no regular file.
        """
        with self._opened() as dir_fd:
            try:
                status = os.stat(FILE_NAME, dir_fd=dir_fd, follow_symlinks=False)
            except FileNotFoundError:
                raise self._missing(dir_fd) from None
            self._check(status, self.file)
            if not stat.S_ISREG(status.st_mode):
                raise DamagedSecretStoreError(f"{self.file} is no regular file")
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(FILE_NAME, flags, dir_fd=dir_fd), "rb") as file:
                self._check(os.fstat(file.fileno()), self.file)  # it may be another one by now
                return file.read(MAX_FILE_BYTES + 1)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out, and remove what killed ones have left.

        Raises:
            BusyError: Another process holds the lock for 10 s.
        """
        with self._opened() as dir_fd, locked(dir_fd, self.root, self._lock_timeout_s):
            for name in _names(dir_fd):
                if name.startswith(_TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=dir_fd)
            yield

    def replace(self, content: bytes) -> None:
        """Put a new content in place, durably; whoever reads meanwhile gets the old one. Called inside ``writing``.

        Raises:
            UsageError: The content is larger than a store can be.
        """
        if len(content) > MAX_FILE_BYTES:
            raise UsageError("the secret store would become larger than it can be (8 MiB)")
        temporary = f"{_TEMPORARY_PREFIX}{os.urandom(8).hex()}{_TEMPORARY_SUFFIX}"
        with self._opened() as dir_fd:
            try:
                _write_new(dir_fd, temporary, content)
                os.replace(temporary, FILE_NAME, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=dir_fd)
                raise
            os.fsync(dir_fd)

    def back_up(self) -> Path:
        """Keep the present file under another name with mode 0600; called inside ``writing``, before it is replaced."""
        base = f"{FILE_NAME}.bak-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        with self._opened() as dir_fd:
            taken = _names(dir_fd)
            names = (base if number == 1 else f"{base}-{number}" for number in range(1, 1000))
            name = next(name for name in names if name not in taken)
            try:
                os.link(
                    FILE_NAME, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False
                )
            except OSError:  # a file system without links, or a file of somebody else
                os.rename(FILE_NAME, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            if stat.S_ISREG(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                os.chmod(name, 0o600, dir_fd=dir_fd)
            os.fsync(dir_fd)
        return self.root / name

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the folder, so that everything after it is about this very folder."""
        with self._explained():
            try:
                self._check(self.root.lstat(), self.root)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                dir_fd = os.open(self.root, flags)
            except FileNotFoundError:
                raise NoSecretStoreError(_NONE_YET) from None
            try:
                yield dir_fd
            finally:
                os.close(dir_fd)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SecretStoreError(f"cannot use {self.root}: {error.strerror or error}") from error

    def _check(self, status: os.stat_result, path: Path) -> None:
        if stat.S_ISLNK(status.st_mode):
            raise UsageError(f"{path} is a link; put the secret store itself there")
        if status.st_uid != os.geteuid() and not self._allow_foreign_owner:
            raise UsageError(
                f"{path} belongs to user {status.st_uid}, not to you; "
                "if that is meant, say --allow-foreign-owner"
            )
        if status.st_mode & _OTHERS and self._warn is not None and path not in self._warned:
            self._warned.add(path)
            mode = stat.S_IMODE(status.st_mode)
            self._warn(
                f"warning: {path} has mode {mode:04o}, so others can reach it; take that from them with chmod"
            )

    def _missing(self, dir_fd: int) -> Exception:
        """Return why there is no store; the first generation's files are no store of ours."""
        names = _names(dir_fd)
        if "secrets.enc" not in names:
            return NoSecretStoreError(_NONE_YET)
        if ".salt" not in names:
            return DamagedSecretStoreError(
                f"salt missing: {self.root} holds a store of the first generation without its .salt, "
                "which nothing can open; restore .salt from a backup, or move secrets.enc away"
            )
        return NoSecretStoreError(
            f"no store yet, but one of the first generation: run `runner secrets init`, then "
            f"`runner secrets import --from-reactorcide {self.root}`"
        )


_NONE_YET = "no store yet: run `runner secrets init`"


def _names(dir_fd: int) -> set[str]:
    return set(os.listdir(dir_fd))


def _sync_names(folder: Path) -> None:
    """Make durable what was made in a folder, as far as that one may be read."""
    with contextlib.suppress(PermissionError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _write_new(dir_fd: int, name: str, content: bytes) -> None:
    """Write a file that was not there before, with mode 0600 from its first byte, and make it durable."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
    try:
        os.fchmod(fd, 0o600)
        folder = os.fstat(dir_fd)
        if folder.st_uid != os.geteuid():
            os.fchown(fd, folder.st_uid, folder.st_gid)  # root must not lock the owner out
        write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
