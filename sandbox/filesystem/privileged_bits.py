"""Takes setuid and setgid off what a job has left: on the host they would lend the job's user to whoever runs the file.

A filter of system calls is not enough, and would refuse builds that make packages: they set such bits on files that nobody runs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVILEGED = stat.S_ISUID | stat.S_ISGID


def take_privileged_bits(top: Path) -> None:
    """Take the bits off everything below a folder that belongs to its owner, whatever its depth. Blocks.

    Called when the last process is dead; one that hid would gain nothing: no link is followed, and what is changed
    was opened and belongs to the job. Holds two descriptors. What the job has made unreadable for itself is passed over:
    nobody else reaches it.
    """
    try:
        here = os.open(top, _FOLDER)
    except OSError:
        return
    try:
        owner = os.fstat(here).st_uid
        levels = [_take_here(here, owner)]
        while levels:
            below = levels[-1].pop() if levels[-1] else ""
            if not below:
                levels.pop()
                if not levels:
                    return
            try:
                there = os.open(below or "..", _FOLDER, dir_fd=here)
            except PermissionError:
                if below:
                    continue
                return
            os.close(here)
            here = there
            if below:
                levels.append(_take_here(here, owner))
    except OSError:
        return
    finally:
        os.close(here)


def _take_here(folder: int, owner: int) -> list[str]:
    """Take the bits off the entries of an open folder; return its folders."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if mode & _PRIVILEGED and not stat.S_ISLNK(mode):
                with contextlib.suppress(OSError):
                    _take(folder, entry.name, owner)
            if stat.S_ISDIR(mode):
                inner.append(entry.name)
    return inner


def _take(folder: int, name: str, owner: int) -> None:
    pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(pinned)
        if found.st_uid == owner and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            # The magic link leads to exactly what was opened.
            mode = stat.S_IMODE(found.st_mode) & ~_PRIVILEGED
            os.chmod(f"/proc/self/fd/{pinned}", mode)  # noqa: PTH101
    finally:
        os.close(pinned)
