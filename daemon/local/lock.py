"""The lock that makes one instance per state directory.

It is taken before anything else is opened, inherited by the daemon and by both children, and so released only when the
last of them has gone. A lock on an inherited descriptor belongs to the open file, not to a
process (flock(2)).
"""

from __future__ import annotations

import fcntl
import os

from daemon.errors import StateDirError
from daemon.paths import StateDir, make_private_dir


def take_lock(state: StateDir) -> int | None:
    """Return a descriptor that holds the lock, or None when somebody else holds it.

    Raises:
        StateDirError: The state directory cannot be made or written.
    """
    make_private_dir(state.root)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        fd = os.open(state.lock, flags, 0o600)
    except OSError as error:
        problem = f"cannot open {state.lock}: {error.strerror}; choose another --state-dir"
        raise StateDirError(problem) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError as error:
        os.close(fd)
        problem = f"cannot lock {state.lock}: {error.strerror}; choose another --state-dir"
        raise StateDirError(problem) from error
    return fd


def is_locked(state: StateDir) -> bool:
    """Tell whether any process of an installation lives, without keeping others from taking the lock."""
    try:
        fd = os.open(state.lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
