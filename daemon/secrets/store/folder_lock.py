"""The lock of a store's writers. Readers take none: a rename gives them the old file or the new one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from daemon.errors import BusyError

LOCK_NAME = ".lock"
LOCK_TIMEOUT_S = 10.0
_POLL_S = 0.02


@contextlib.contextmanager
def locked(dir_fd: int, where: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a folder; the kernel releases it when the holder dies.

    Args:
        dir_fd: The folder.
        where: Its name, for the message.
        timeout_s: How long another writer is waited for.

    Raises:
        BusyError: Somebody else holds it all that time.
        OSError: The lock file cannot be made or opened.
    """
    deadline = time.monotonic() + timeout_s
    fd = _open(dir_fd)
    try:
        while not _take(fd) or not _is_current(fd, dir_fd):
            if time.monotonic() > deadline:
                raise BusyError(
                    f"the secret store {where} is locked by {_holder(fd)}; try again later"
                )
            time.sleep(_POLL_S)
            if not _is_current(fd, dir_fd):
                os.close(fd)
                fd = _open(dir_fd)
        yield
    finally:
        os.close(fd)


def _open(dir_fd: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(LOCK_NAME, flags, 0o600, dir_fd=dir_fd)
    folder = os.fstat(dir_fd)
    if os.fstat(fd).st_uid != folder.st_uid and os.geteuid() == 0:
        os.fchown(fd, folder.st_uid, folder.st_gid)  # root must not lock the owner out
    return fd


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(fd: int, dir_fd: int) -> bool:
    """Tell whether the lock file still is the one in the folder: a removed one excludes nobody."""
    try:
        found = os.stat(LOCK_NAME, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def _holder(fd: int) -> str:
    """Name the process that holds the lock, as far as the kernel tells (proc_locks(5))."""
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and device in words and words[1] != "->":
                pid = words[words.index(device) - 1]
                if pid != "0":
                    return f"process {pid}"
    return "another process"
