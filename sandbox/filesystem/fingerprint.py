"""What a job could have changed on the folders of a workspace, read so that nothing can hide.

The time of the last change is the kernel's own, and no job can set it; but it moves in ticks of some
milliseconds, so a folder that was just made could be touched and show the same time. So of a folder whose mark was
read shortly before the first command everything that the owner of an empty folder can change is compared as well: entries,
mode, owner, times, extended attributes, flags (chattr(1)), and the project that quotas count for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

from sandbox.filesystem.file_system import tells_of_attributes
from sandbox.filesystem.workspace import FOLDERS, Workspace

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONG = struct.pack("l", 0)
_GET_FLAGS = 2 << 30 | len(_LONG) << 16 | ord("f") << 8 | 1
"""FS_IOC_GETFLAGS; see linux/fs.h and asm-generic/ioctl.h, whose numbers some machines have in another way."""
_ATTRIBUTES = bytes(28)
_GET_ATTRIBUTES = 2 << 30 | len(_ATTRIBUTES) << 16 | ord("X") << 8 | 31
"""FS_IOC_FSGETXATTR: a second set of flags, and the project."""
PATHS = ("", *FOLDERS)
"""The folders, "" for the workspace itself."""
_STEPS = [(path, *path.rpartition("/")[::2]) for path in FOLDERS]
"""Those in it, each with the one that it is in and its name there."""

_SETTLED_S = 0.5
"""After it a change has another time than one before: many ticks, also of a clock that a busy host holds up, or of another host's."""
_COARSE_NS = 10_000_000
"""A time that is a multiple of it may be that of a file system that keeps no better ones, such as ext3."""

Mark = tuple[tuple[tuple[int, ...], int], list[str], list[tuple[str, bytes]], bytes, bytes]
"""One folder at one moment; equal marks mean that nobody has touched it in between."""


class Marked(NamedTuple):
    """One folder, and when it was looked at."""

    mark: Mark
    read_at: float
    """By the monotonic clock, in seconds; not before the folder's last change."""
    times_tell: bool = False
    """Whether also an extended attribute moves the time of the last change."""


Fingerprint = dict[str, Marked]
"""The folders of a workspace by their path in it, "" for itself."""


def fingerprint(workspace: Workspace) -> Fingerprint:
    """Return the marks of all folders of a workspace.

    Called once per workspace that is made. 0.2 ms.

    Raises:
        OSError: One of them is missing, or no folder any more.
    """
    opened: dict[str, int] = {"": os.open(workspace.text, _FOLDER)}
    try:
        for path, above, name in _STEPS:
            opened[path] = os.open(name, _FOLDER, dir_fd=opened[above])
        times_tell = tells_of_attributes(opened[""])
        return {
            path: Marked(_mark(fd), time.monotonic(), times_tell) for path, fd in opened.items()
        }
    finally:
        for fd in opened.values():
            os.close(fd)


def is_unchanged(
    workspace: Workspace,
    marks: Fingerprint,
    since: float,
    *,
    root_fd: int,
    paths: Iterable[str] = PATHS,
) -> bool:
    """Tell whether the folders of a workspace are as they were marked; called after every command, and of some before it.

    Args:
        workspace: Nobody is in it any more.
        marks: Of its folders.
        since: When the first command began since then, by the monotonic clock.
        root_fd: The folder that the workspace is in, from which it is half as far to those in it.
        paths: Which of them.
    """
    try:
        for path in paths:
            mark, read_at, times_tell = marks[path]
            below = f"/{path}" if path else ""
            # The hot path.
            found = os.stat(f"{workspace.name}{below}", dir_fd=root_fd, follow_symlinks=False)
            identity, changed_at = mark[0]
            if _identity(found) != identity:
                return False
            if not path and _is_roots(workspace):
                continue
            if found.st_ctime_ns != changed_at:
                return False
            settled = since - read_at > _SETTLED_S and found.st_ctime_ns % _COARSE_NS != 0
            if settled and times_tell:
                continue
            folder = f"{workspace.text}{below}"
            if not (settled and _has_no_attributes(folder)) and _marked(folder) != mark:
                return False
    except OSError:
        return False
    return True


def after_move(marks: Fingerprint, workspace: Workspace) -> Fingerprint:
    """Return the marks of a workspace that was renamed, which is a change of its own folder only.

    Raises:
        OSError: It is missing, or not what was marked.
    """
    if _is_roots(workspace):
        return marks
    found = os.lstat(workspace.text)  # the hot path
    (before, _), names, extended, flags, attributes = marks[""].mark
    if _identity(found) != before:
        raise OSError(errno.ESTALE, "another folder has taken its place", workspace.text)
    mark = ((before, found.st_ctime_ns), names, extended, flags, attributes)
    return {**marks, "": Marked(mark, time.monotonic(), marks[""].times_tell)}


def _is_roots(workspace: Workspace) -> bool:
    """Tell whether the folder itself is root's, as that above it: no job can change or replace it, so its times of a change tell nothing."""
    return workspace.job_uid is not None


def _has_no_attributes(folder: str) -> bool:
    """Tell whether a folder has no extended attribute: old tmpfs, f2fs and ZFS change one without the time of the change."""
    try:
        return not os.listxattr(folder, follow_symlinks=False)
    except OSError:  # a file system that has none
        return True


def _marked(folder: str) -> Mark:
    fd = os.open(folder, _FOLDER)
    try:
        return _mark(fd)
    finally:
        os.close(fd)


def _mark(fd: int) -> Mark:
    found = os.fstat(fd)
    return (
        (_identity(found), found.st_ctime_ns),
        sorted(os.listdir(fd)),  # a descriptor
        _extended(fd),
        _asked(fd, _GET_FLAGS, _LONG),
        _asked(fd, _GET_ATTRIBUTES, _ATTRIBUTES),
    )


def _identity(found: os.stat_result) -> tuple[int, ...]:
    # Mode, inode, device, links, owner, group and size.
    return (*found[:7], found.st_mtime_ns)


def _extended(fd: int) -> list[tuple[str, bytes]]:
    try:
        names = os.listxattr(fd)
    except OSError:  # a file system that has none
        return []
    return [(name, os.getxattr(fd, name)) for name in names]


def _asked(fd: int, request: int, room: bytes) -> bytes:
    try:
        return fcntl.ioctl(fd, request, room)
    except OSError:  # ditto
        return b""
