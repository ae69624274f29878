"""Removing a tree that a hostile job has made: mode 000, thousands of levels deep, full of links.

Nothing is ever addressed by a path: every step opens one name below an open folder and follows no
link. Folders below the first level are moved up before they are emptied, so that neither the
depth of the tree nor the number of descriptors grows.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ALL = 0o700
_BATCH = 10_000
"""How many entries of a folder are known at a time."""


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove ``name`` below an open folder, a tree or a single entry. A missing one is no error.

    Several may remove the same tree at once: what another has removed is done.

    Raises:
        OSError: Something could not be removed, e.g. because it is a mount point.
    """
    try:
        top = _open_folder(parent_fd, name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent_fd)
        return
    try:
        _refuse_mount(parent_fd, top, name)
        _empty_and_remove(parent_fd, top, name)
    finally:
        os.close(top)


def is_mount(parent: int, folder: int) -> bool:
    """Tell whether an open folder is mounted below another open one; a bind mount has no other sign."""
    return _mount_id(parent) != _mount_id(folder)


def _empty_and_remove(parent: int, top: int, name: str) -> None:
    left: set[str] | None = None
    while True:
        _empty(top)
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            # Another who removes this tree may have put something there; what stays is no such thing.
            before, left = left, _names(top)
            if error.errno != errno.ENOTEMPTY or left == before:
                raise
        else:
            return


def _empty(top: int) -> None:
    # The names of others who remove this tree must not be taken.
    prefix = f".removed-{os.urandom(8).hex()}"
    moved = 0
    folders = _unlink_files(top)
    while folders:
        folder = folders.pop()
        try:
            fd = _open_folder(top, folder)
        except FileNotFoundError:
            continue
        try:
            if not folder.startswith(prefix):  # a mount point cannot be moved
                _refuse_mount(top, fd, folder)
            for child in _unlink_files(fd):
                moved += 1
                with contextlib.suppress(FileNotFoundError):
                    _move(fd, child, top, f"{prefix}-{moved}")
                    folders.append(f"{prefix}-{moved}")
        finally:
            os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(folder, dir_fd=top)


def _unlink_files(fd: int) -> list[str]:
    """Remove what is no folder; return the names of the folders.

    Of a folder with millions of files few are known at a time. What is removed while a folder is being read may hide others
    from the reader, so such a folder is read again.
    """
    while True:
        folders, batches, removed = [], 0, 0
        with os.scandir(fd) as entries:
            while batch := list(itertools.islice(entries, _BATCH)):
                batches += 1
                for entry in batch:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                        continue
                    removed += 1
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=fd)
        if batches <= 1 or not removed:
            return folders


def _move(source: int, name: str, target: int, new_name: str) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except PermissionError:
        # Moving a folder writes its "..", which needs the right to write it.
        os.close(_open_folder(source, name, unlock=True))
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)


def _open_folder(parent: int, name: str, *, unlock: bool = False) -> int:
    if not unlock:
        with contextlib.suppress(PermissionError):
            fd = os.open(name, _FOLDER, dir_fd=parent)
            mode = os.fstat(fd).st_mode
            if mode & _ALL != _ALL:
                os.fchmod(fd, _ALL)
            return fd
    pinned = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # chmod has no "do not follow" on Linux; the magic link leads to exactly what was opened.
        Path(f"/proc/self/fd/{pinned}").chmod(_ALL)
        return os.open(".", _FOLDER, dir_fd=pinned)
    finally:
        os.close(pinned)


def _names(folder: int) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _refuse_mount(parent: int, folder: int, name: str) -> None:
    """Keep the content of what is mounted: it is not the tree's."""
    if is_mount(parent, folder):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)


def _mount_id(fd: int) -> str:
    """Return the id of the mount that an open folder is on (proc_pid_fdinfo(5))."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    )
    return fields["mnt_id"].strip()
