"""Copying into and reading out of a workspace whose content is hostile.

Every component of a path is opened below the folder before it, without following links, so a job that
swaps a folder for a link between two steps gains nothing (openat(2), O_NOFOLLOW).
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sandbox.errors import SandboxBrokenError, TransferRefusedError
from sandbox.job_path import path_parts

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 400
"""Two descriptors per level; a deeper source is a mistake."""
_PIECE = 64 << 20
_BUFFER = 1 << 20
_BLOCK_BYTES = 512
"""Of st_blocks, whatever the file system."""
_NO_RANGE = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
_NOT_BELOW = frozenset({errno.ELOOP, errno.ENOTDIR})


def open_folder(root: Path, path: str, *, owner: int | None = None, create: bool = False) -> int:
    """Return a descriptor of a folder below ``root``, made with its parents if ``create``."""
    fd = os.open(root, _FOLDER)
    try:
        for name in path_parts(path):
            if create:
                _make_folder(fd, name, owner)
            below = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = below
    except OSError as error:
        os.close(fd)
        if error.errno in _NOT_BELOW:
            raise TransferRefusedError(f"{path!r} crosses a link or is no folder") from error
        raise
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_file(root: Path, path: str, limit_bytes: int) -> bytes:
    """Return the content of a regular file below ``root``; see ``Sandbox.download``."""
    names = path_parts(path)
    if not names:
        raise TransferRefusedError(f"{path!r} is no file")
    try:
        folder = open_folder(root, str(PurePosixPath(*names[:-1])))
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(names[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "is a link" if error.errno in _NOT_BELOW else error.strerror
        raise TransferRefusedError(f"{path!r} cannot be read: {reason}") from error
    try:
        return _read_regular(fd, path, limit_bytes)
    finally:
        os.close(fd)


def _read_regular(fd: int, path: str, limit_bytes: int) -> bytes:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise TransferRefusedError(f"{path!r} is no regular file")
    content = bytearray()
    while len(content) <= limit_bytes:
        piece = os.read(fd, min(_BUFFER, limit_bytes + 1 - len(content)))
        if not piece:
            return bytes(content)
        content += piece
    raise TransferRefusedError(f"{path!r} is larger than {limit_bytes} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeCopy:
    """One copy of a host folder into a workspace; runs on any thread, spawns nothing."""

    owner: int | None
    """User and group of the copies, when this process is root's."""
    skip: tuple[int, int]
    """Device and inode of the folder of all workspaces: a source that holds it would copy itself."""
    left_out: frozenset[str] = frozenset()
    """Paths relative to the source that are not copied; a folder stands for all that is in it."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set by anybody to end the copy at the next entry, or the next piece of a large file."""

    def run(self, source: Path, target_fd: int) -> None:
        """Copy the content of ``source`` into an open folder.

        Raises:
            TransferRefusedError: The source holds a device, socket or FIFO, or cannot be read.
            SandboxBrokenError: The copy was stopped.
        """
        try:
            source_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TransferRefusedError(f"{source} cannot be read: {error.strerror}") from error
        try:
            self._refuse_inside(source_fd, source)
            self._copy_folder(source_fd, target_fd, source, "", 0)
        except OSError as error:
            raise TransferRefusedError(f"{source} cannot be copied: {error}") from error
        finally:
            os.close(source_fd)

    def _refuse_inside(self, source: int, path: Path) -> None:
        found = os.fstat(source)
        if (found.st_dev, found.st_ino) == self.skip:
            raise TransferRefusedError(f"{path} is the folder of all workspaces")

    def _copy_folder(self, source: int, target: int, path: Path, prefix: str, depth: int) -> None:
        """Copy what one folder holds; ``prefix`` is its path below the source, with a slash."""
        if depth > _DEPTH:
            raise TransferRefusedError(f"{path} is more than {_DEPTH} folders deep")
        with os.scandir(source) as found:
            entries = list(found)
        for entry in entries:
            self._refuse_stopped()
            name = entry.name
            if self.left_out and prefix + name in self.left_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                self._copy_subfolder(source, target, path / name, f"{prefix}{name}/", depth)
            elif entry.is_symlink():
                self._copy_link(source, target, name)
            elif entry.is_file(follow_symlinks=False):
                self._copy_file(source, target, name)
            else:
                raise TransferRefusedError(f"{path / name} is a device, socket or FIFO")

    def _copy_subfolder(
        self, source: int, target: int, path: Path, prefix: str, depth: int
    ) -> None:
        below = os.open(path.name, _FOLDER, dir_fd=source)
        try:
            found = os.fstat(below)
            if (found.st_dev, found.st_ino) == self.skip:
                return
            _make_folder(target, path.name, self.owner)
            copy = os.open(path.name, _FOLDER, dir_fd=target)
            try:
                self._copy_folder(below, copy, path, prefix, depth + 1)
                _copy_mode(os.fstat(below), copy)
            finally:
                os.close(copy)
        finally:
            os.close(below)

    def _copy_link(self, source: int, target: int, name: str) -> None:
        _remove_file(target, name)
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        if self.owner is not None:
            os.chown(name, self.owner, self.owner, dir_fd=target, follow_symlinks=False)

    def _copy_file(self, source: int, target: int, name: str) -> None:
        # O_NONBLOCK: what was a file a moment ago may be a FIFO without a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        original = os.open(name, flags, dir_fd=source)
        try:
            found = os.fstat(original)
            if not stat.S_ISREG(found.st_mode):
                raise TransferRefusedError(f"{name!r} was replaced while it was copied")
            copy = _new_file(target, name)
            try:
                if found.st_blocks * _BLOCK_BYTES < found.st_size:
                    self._copy_with_holes(original, copy, found.st_size)
                else:
                    self._copy_content(original, copy, found.st_size)
                if self.owner is not None:
                    os.fchown(copy, self.owner, self.owner)
                _copy_mode(found, copy)
            finally:
                os.close(copy)
        finally:
            os.close(original)

    def _copy_content(self, source: int, target: int, size: int) -> None:
        """Copy a file that fills its blocks."""
        if not self._copy_range(source, target, 0, size):
            # One of a pseudo file system, whose size is told as 0 or which answers 0.
            while os.sendfile(target, source, None, _PIECE):
                self._refuse_stopped()

    def _copy_with_holes(self, source: int, target: int, size: int) -> None:
        """Copy what a file has, so that one of a terabyte that holds nothing fills no disk (lseek(2), SEEK_DATA)."""
        end = 0
        while end < size:
            self._refuse_stopped()
            try:
                start = os.lseek(source, end, os.SEEK_DATA)
                end = min(os.lseek(source, start, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole
                    break
                raise
            self._copy_range(source, target, start, end)
        os.ftruncate(target, size)

    def _copy_range(self, source: int, target: int, start: int, end: int) -> int:
        """Copy in the kernel, which shares the blocks where the filesystem can (FICLONE); return how far it got."""
        try:
            while start < end:
                count = os.copy_file_range(source, target, min(_PIECE, end - start), start, start)
                if not count:
                    return start
                start += count
                self._refuse_stopped()
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
        os.lseek(target, start, os.SEEK_SET)
        while start < end and (
            count := os.sendfile(target, source, start, min(_PIECE, end - start))
        ):
            start += count
            self._refuse_stopped()
        return start

    def _refuse_stopped(self) -> None:
        if self.stop.is_set():
            raise SandboxBrokenError("the copy was stopped")


def _make_folder(parent: int, name: str, owner: int | None) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return
    if owner is not None:
        os.chown(name, owner, owner, dir_fd=parent, follow_symlinks=False)


def _new_file(parent: int, name: str) -> int:
    """Return a descriptor of a new file; what has its name is removed first."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600, dir_fd=parent)
    except FileExistsError:
        _remove_file(parent, name)
        return os.open(name, flags, 0o600, dir_fd=parent)


def _remove_file(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _copy_mode(found: os.stat_result, target: int) -> None:
    """Copy permissions and times; setuid and setgid have no place in a workspace."""
    os.fchmod(target, stat.S_IMODE(found.st_mode) & 0o777)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
