"""Which users of the range are taken, among all processes of this host: byte locks of one file, which die with their holder.

Several agent-runners of root, of one installation or of several, and ``run-local`` share the range. So each user is
reserved before it is used: by a lock on the byte whose offset is its number (fcntl(2), open file description locks).
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from pathlib import Path

LOCK_FILES = (Path("/run/runner-job-users"), Path("/var/lib/runner-job-users"))
"""The first whose folder takes it; both are root's."""

logger = logging.getLogger(__name__)


class JobUsers:
    """The reservations of one process, given up when it ends. Made by root only; used on one event loop."""

    def __init__(self, files: tuple[Path, ...] = LOCK_FILES) -> None:
        """Remember where; the file is opened with the first reservation."""
        self._files = files
        self._fd: int | None = None

    def reserve(self, uid: int) -> bool:
        """Take a user for the life of this process; False if another process has it. Called once per lane."""
        if self._fd is None:
            self._fd = self._open()
        if self._fd < 0:
            return True
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _byte_lock(uid))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def close(self) -> None:
        """Give every reservation up. Idempotent."""
        if self._fd is not None and self._fd >= 0:
            os.close(self._fd)
        self._fd = None

    def _open(self) -> int:
        reason = "no place for the file"
        for path in self._files:
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                reason = str(error)
        logger.warning(
            "Users of jobs cannot be reserved; other runners of root may use the same ones",
            extra={"action": "job_users_not_reserved", "error": reason},
        )
        return -1


def _byte_lock(offset: int) -> bytes:
    """Return a struct flock: type, whence, start, length, pid."""
    return struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
