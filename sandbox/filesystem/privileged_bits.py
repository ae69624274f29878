"""Takes setuid and setgid off what a job has left: on the host they would lend the job's user to whoever runs the file.

A filter of system calls is not enough, and would refuse builds that make packages: they set such bits on files that nobody runs.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVILEGED = stat.S_ISUID | stat.S_ISGID


def take_privileged_bits(top: Path) -> None:
    """Take the bits off everything below a folder, whatever its depth. Blocks; called when the last process is dead.

    Follows no link, and holds one descriptor. What the job has made unreadable for itself is passed over: nobody else
    reaches it.
    """
    try:
        here = os.open(top, _FOLDER)
    except OSError:
        return
    try:
        levels = [_take_here(here)]
        while levels:
            if levels[-1]:
                name = levels[-1].pop()
                try:
                    below = os.open(name, _FOLDER, dir_fd=here)
                except OSError:
                    continue
                os.close(here)
                here = below
                levels.append(_take_here(here))
                continue
            levels.pop()
            if levels:
                above = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here = above
    except OSError:
        return
    finally:
        os.close(here)


def _take_here(folder: int) -> list[str]:
    """Take the bits off the entries of an open folder; return its folders."""
    inner = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            mode = entry.stat(follow_symlinks=False).st_mode
            if mode & _PRIVILEGED:
                os.chmod(entry.name, stat.S_IMODE(mode) & ~_PRIVILEGED, dir_fd=folder)
            if stat.S_ISDIR(mode):
                inner.append(entry.name)
    return inner
