"""How much of the disk the folders of a job take, while the job changes them: nothing is followed, nothing is opened but folders."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 512
ENTRY_BYTES = 512
"""What an entry counts beside its blocks: names and inodes fill a disk too."""
_LEVELS = 15
"""How many names a path may have that is opened at once: 255 bytes each, 4,095 together."""
_DEEPEST = 250
"""How many such paths may hang below each other; each holds a descriptor."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskUse:
    """One look at the disk. Made and thrown away; blocks, so it is used on a thread."""

    def __init__(self, enough: int) -> None:
        """Remember when to stop.

        Args:
            enough: More than this need not be counted.
        """
        self._enough = enough
        self._seen: set[tuple[int, int]] = set()
        self.total = 0
        """Bytes that were found."""

    def add_folder(self, path: Path) -> None:
        """Count what is below a folder, and on the same file system. One that is missing or closed to us has nothing.

        A folder that is deeper than any path can be counts as more than enough.
        """
        with contextlib.suppress(OSError):
            fd = os.open(path, _FOLDER)
            try:
                self._walk(fd, os.fstat(fd).st_dev, 0)
            finally:
                os.close(fd)

    def add_unlinked(self, pids: Iterable[int], device: int) -> None:
        """Count files of a file system that have no name any more, but are held open."""
        for pid in pids:
            with contextlib.suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - as in procfs
                    self._add_unlinked(f"/proc/{pid}/fd/{name}", device)
            if self.total > self._enough:
                return

    def _add_unlinked(self, path: str, device: int) -> None:
        with contextlib.suppress(OSError):
            found = os.stat(path)  # noqa: PTH116 - the magic link leads to what is open
            if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_dev == device:
                self._add(found)

    def _walk(self, top: int, device: int, depth: int) -> None:
        """Count what is below an open folder; a path of many names is opened, and walked from there."""
        waiting = [""]
        while waiting and self.total <= self._enough:
            path = waiting.pop()
            try:
                fd = os.open(path or ".", _FOLDER, dir_fd=top)
            except OSError:  # gone, closed to us, or something else by now
                continue
            try:
                if os.fstat(fd).st_dev != device:
                    continue
                if path.count("/") >= _LEVELS:
                    self._walk_deeper(fd, device, depth + 1)
                else:
                    waiting += self._entries(fd, f"{path}/" if path else "")
            finally:
                os.close(fd)

    def _walk_deeper(self, fd: int, device: int, depth: int) -> None:
        if depth > _DEEPEST:
            self.total = self._enough + 1
        else:
            self._walk(fd, device, depth)

    def _entries(self, fd: int, prefix: str) -> list[str]:
        """Count the entries of an open folder; return the paths of the folders among them."""
        folders = []
        with contextlib.suppress(OSError), os.scandir(fd) as entries:
            for entry in entries:
                try:
                    self._add(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(prefix + entry.name)
                if self.total > self._enough:
                    return []
        return folders

    def _add(self, found: os.stat_result) -> None:
        if found.st_nlink != 1 and not stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) in self._seen:
                return
            self._seen.add((found.st_dev, found.st_ino))
        self.total += found.st_blocks * BLOCK_BYTES + ENTRY_BYTES
