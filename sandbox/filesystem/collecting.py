"""Walks a folder of a workspace whose content is hostile, and offers its files; follows no link (see ``transfer``)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from sandbox.collection import Taker
from sandbox.errors import SandboxBrokenError, TransferRefusedError
from sandbox.filesystem.transfer import open_folder

MAX_DEPTH = 200
"""One descriptor per level."""
MAX_ENTRIES = 1_000_000
"""Of all folders that are entered; a walk over them takes some seconds."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True, kw_only=True)
class TreeCollection:
    """One walk; runs on any thread, spawns nothing."""

    taker: Taker
    owner: int | None
    """Whose the files must be, when this process is root's: a name may be a second one of a file outside."""
    stop: threading.Event
    """Set by anybody to end the walk at the next entry, or the next piece of a large file."""
    _entries: int = 0

    def run(self, root: Path, path: str) -> None:
        """Offer what a folder below ``root`` holds; see ``Collecting.collect``."""
        try:
            fd = open_folder(root, path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransferRefusedError(f"{path!r} cannot be read: {error.strerror}") from error
        try:
            self._walk(fd, "", 0)
        finally:
            os.close(fd)

    def _walk(self, folder: int, prefix: str, depth: int) -> None:
        files, folders = self._wanted(folder, prefix)
        for last in sorted([*files, *folders]):
            self._go_on()
            if last in folders:
                self._enter(folder, last, prefix + last, depth + 1)
            else:
                self._offer(folder, last, prefix + last)

    def _wanted(self, folder: int, prefix: str) -> tuple[list[str], set[str]]:
        """Return the names of the files and folders that are asked for; of a hostile folder no more is kept in memory."""
        files: list[str] = []
        folders: set[str] = set()
        with os.scandir(folder) as found:
            for entry in found:
                self._go_on()
                self._entries += 1
                if self._entries > MAX_ENTRIES:
                    raise TransferRefusedError(
                        f"there are more than {MAX_ENTRIES:,} files to look through"
                    )
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if self.taker.enters(name):
                        folders.add(entry.name)
                elif self.taker.wants(name):
                    files.append(entry.name)
        return files, folders

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise SandboxBrokenError("the collection was stopped")

    def _enter(self, parent: int, last: str, name: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.taker.refuse(name, f"is more than {MAX_DEPTH} folders deep")
            return
        try:
            fd = os.open(last, _FOLDER, dir_fd=parent)
        except OSError as error:
            self.taker.refuse(name, _why_not(error))
            return
        try:
            self._walk(fd, f"{name}/", depth)
        finally:
            os.close(fd)

    def _offer(self, folder: int, last: str, name: str) -> None:
        try:
            mode = os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                with contextlib.suppress(OSError):  # it is gone, or something else by now
                    self.taker.link(name, os.readlink(last, dir_fd=folder))
                return
            if not stat.S_ISREG(mode):
                self.taker.refuse(name, "is no regular file")
                return
            fd = os.open(last, _FILE, dir_fd=folder)
        except OSError as error:
            self.taker.refuse(name, _why_not(error))
            return
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode):
                self.taker.refuse(name, "is no regular file")
            elif self.owner is not None and facts.st_uid != self.owner:
                self.taker.refuse(name, "does not belong to the job")
            else:
                content = _Content(fd, facts.st_size, self.stop)
                self.taker.take(name, facts.st_mode & 0o777, facts.st_size, content.read)
        finally:
            os.close(fd)


class _Content:
    """The bytes of one file, no more of them than were announced: who survived a command may write on."""

    def __init__(self, fd: int, size: int, stop: threading.Event) -> None:
        self._fd = fd
        self._left = size
        self._stop = stop

    def read(self, count: int) -> bytes:
        """Return the next bytes; nothing at the end."""
        if self._stop.is_set():
            raise SandboxBrokenError("the collection was stopped")
        piece = os.read(self._fd, min(count, self._left))
        self._left -= len(piece)
        return piece


def _why_not(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "is a link"
    return f"cannot be read: {error.strerror}"
