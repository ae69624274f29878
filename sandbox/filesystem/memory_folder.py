"""A folder on a file system in memory, for what is made anew with every start and is many small files.

Seven hundred links take 20 ms there and a second on a disk with a journal.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from sandbox import procfs

MEMORY = Path("/dev/shm")  # noqa: S108  # only below it, and only where nobody can replace what we made
_PASSABLE = 0o711


def open_memory_folder(memory: Path = MEMORY) -> Path | None:
    """Make a folder that everybody may pass and only this user can write, and remove those of its processes that are no more.

    Called once per provider of filesystem sandboxes; who calls it removes the folder.

    Returns:
        None where there is no such file system, or others could put something else in the place of the folder.
    """
    me = procfs.read_stat(os.getpid())
    try:
        found = memory.stat()
        trusted = found.st_uid == 0 and found.st_mode & stat.S_ISVTX
        if not trusted or me is None:
            return None
        # Pids of another namespace say nothing here.
        prefix = f"runner-{os.geteuid()}-{Path('/proc/self/ns/pid').stat().st_ino}"
        _sweep(memory, prefix)
        path = memory / f"{prefix}-{me.pid}-{me.start_ticks}-{os.urandom(4).hex()}"
        path.mkdir(mode=0o700)
        path.chmod(_PASSABLE)
    except OSError:
        return None
    return path


def _sweep(memory: Path, prefix: str) -> None:
    """Remove what killed processes left; what cannot be removed is in nobody's way."""
    for path in memory.glob(f"{prefix}-*"):
        with contextlib.suppress(OSError, ValueError):
            pid, start_ticks = map(int, path.name.removeprefix(f"{prefix}-").split("-")[:2])
            stat_now = procfs.read_stat(pid)
            if stat_now is not None and stat_now.start_ticks == start_ticks:
                continue
            if path.lstat().st_uid == os.geteuid():
                import shutil  # noqa: PLC0415 - few are left

                shutil.rmtree(path)
