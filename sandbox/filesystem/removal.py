"""Removing a tree that a hostile job has made: mode 000, thousands of levels deep, full of links.

Nothing is ever addressed by a path: every step opens one name below an open folder and follows no
link. Folders below the first level are moved up before they are emptied, so that neither the
depth of the tree nor the number of descriptors grows.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ALL = 0o700


def remove_tree(parent_fd: int, name: str) -> None:
    """Remove ``name`` below an open folder, a tree or a single entry. A missing one is no error.

    Raises:
        OSError: Something could not be removed, e.g. because it is a mount point.
    """
    try:
        top = _open_folder(parent_fd, name)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent_fd)
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)


def _empty(top: int) -> None:
    moved = 0
    folders = _unlink_files(top)
    while folders:
        folder = folders.pop()
        fd = _open_folder(top, folder)
        try:
            for child in _unlink_files(fd):
                moved += 1
                target = f".removed-{moved}"
                while _exists(top, target):
                    moved += 1
                    target = f".removed-{moved}"
                _move(fd, child, top, target)
                folders.append(target)
        finally:
            os.close(fd)
        os.rmdir(folder, dir_fd=top)


def _unlink_files(fd: int) -> list[str]:
    """Remove what is no folder; return the names of the folders."""
    folders = []
    with os.scandir(fd) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=fd)
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


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
