"""What a job could have changed on the folders of a workspace, read so that nothing can hide.

The time of the last change is the kernel's own, and no job can set it; but it moves in ticks of some
milliseconds, so a folder that was just made could be touched and show the same time. So everything
that the owner of an empty folder can change is compared as well: entries, mode, owner, times,
extended attributes, flags (chattr(1)), and the project that quotas count for.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from sandbox.filesystem.workspace import FOLDERS, Workspace

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LONG = struct.pack("l", 0)
_GET_FLAGS = 2 << 30 | len(_LONG) << 16 | ord("f") << 8 | 1
"""FS_IOC_GETFLAGS; see linux/fs.h and asm-generic/ioctl.h, whose numbers some machines have in another way."""
_ATTRIBUTES = bytes(28)
_GET_ATTRIBUTES = 2 << 30 | len(_ATTRIBUTES) << 16 | ord("X") << 8 | 31
"""FS_IOC_FSGETXATTR: a second set of flags, and the project."""

Mark = tuple[tuple[tuple[int, ...], int], list[str], list[tuple[str, bytes]], bytes, bytes]
"""One folder at one moment; equal marks mean that nobody has touched it in between."""
Fingerprint = dict[str, Mark]
"""The folders of a workspace by their path in it, "" for itself."""


def fingerprint(workspace: Workspace) -> Fingerprint:
    """Return the marks of all folders of a workspace.

    Called after a sandbox: has it left them alone? And once per workspace that is made. 0.1 ms.

    Raises:
        OSError: One of them is missing, or no folder any more.
    """
    opened: dict[str, int] = {"": os.open(workspace.path, _FOLDER)}
    try:
        for path in FOLDERS:
            above, _, name = path.rpartition("/")
            opened[path] = os.open(name, _FOLDER, dir_fd=opened[above])
        return {path: _mark(fd) for path, fd in opened.items()}
    finally:
        for fd in opened.values():
            os.close(fd)


def after_move(marks: Fingerprint, workspace: Workspace) -> Fingerprint:
    """Return the marks of a workspace that was renamed, which is a change of its own folder only.

    Raises:
        OSError: It is missing, or not what was marked.
    """
    found = os.stat(workspace.path, follow_symlinks=False)  # noqa: PTH116  # the hot path
    (before, _), names, extended, flags, attributes = marks[""]
    if _identity(found) != before:
        raise OSError(errno.ESTALE, "another folder has taken its place", str(workspace.path))
    return {**marks, "": ((before, found.st_ctime_ns), names, extended, flags, attributes)}


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
    return (
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_nlink,
        found.st_size,
        found.st_mtime_ns,
    )


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
