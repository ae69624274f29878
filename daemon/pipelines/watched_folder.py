"""A folder whose job files are run once each, however many watch it: claimed by a lock and a rename, moved when they have ended.

A claimed file lies in ``.running`` and is locked for as long as its watcher lives, so that another one can tell what a
killed watcher left. What was left is not run again: nobody knows how far it came.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = (".yaml", ".yml", ".json")
RESULT = ".result.json"
RUNNING = ".running"
DONE = "done"
FAILED = "failed"
MAX_BYTES = 256 << 10
MAX_NAME_BYTES = 200
"""Of a file that has ended: with a number and ``RESULT`` it is still a name that file systems take."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job file that is ours. Exactly one of ``finish`` and ``give_back`` ends it."""

    folder: Path
    name: str
    fd: int
    """Open and locked."""

    def read(self) -> bytes:
        """Return the content, up to one byte more than a job file may have."""
        return os.pread(self.fd, MAX_BYTES + 1, 0)

    def finish(self, result: dict[str, Any], *, succeeded: bool) -> Path:
        """Move the file to those that have ended, with its result beside it; return where it is.

        Raises:
            OSError: It cannot be moved.
        """
        target = self.folder / (DONE if succeeded else FAILED)
        target.mkdir(exist_ok=True)
        place = _free(target, _kept_name(self.name))
        beside = target / f"{place.name}{RESULT}"
        beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (self.folder / RUNNING / self.name).rename(place)
        os.close(self.fd)
        return place

    def give_back(self) -> None:
        """Put the file back where it was, not run."""
        with contextlib.suppress(OSError):
            (self.folder / RUNNING / self.name).rename(self.folder / self.name)
        os.close(self.fd)


class WatchedFolder:
    """One folder, as one watcher sees it."""

    def __init__(self, folder: Path) -> None:
        """Watch a folder that exists."""
        self._folder = folder
        self._seen: dict[str, tuple[int, int, int]] = {}

    def prepare(self) -> None:
        """Make the folders in it.

        Raises:
            OSError: They cannot be made.
        """
        for name in (RUNNING, DONE, FAILED):
            (self._folder / name).mkdir(exist_ok=True)

    def claims(self, limit: int) -> Iterator[Claim]:
        """Claim up to so many files that were the same at the last look; called every half second.

        A file that is being written looks different each time. Who renames a finished file into the folder is sure.
        """
        found: dict[str, tuple[int, int, int]] = {}
        for entry in sorted(os.scandir(self._folder), key=lambda entry: entry.name):
            with contextlib.suppress(OSError):
                if _is_job_file(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
        before, self._seen = self._seen, found
        for name, looks in found.items():
            if limit <= 0:
                return
            claim = self._claim(name) if before.get(name) == looks else None
            if claim is not None:
                limit -= 1
                yield claim

    def abandoned(self) -> Iterator[Claim]:
        """Claim what killed watchers left; called at the start."""
        for path in sorted((self._folder / RUNNING).iterdir()):
            fd = _locked(path)
            if fd is not None:
                yield Claim(self._folder, path.name, fd)

    def _claim(self, name: str) -> Claim | None:
        path = self._folder / name
        fd = _locked(path)
        if fd is None:
            return None
        target = self._folder / RUNNING / name
        if target.exists():  # one of the same name runs: this one waits
            os.close(fd)
            return None
        try:
            path.rename(target)
        except OSError:
            os.close(fd)
            return None
        return Claim(self._folder, name, fd)


def _is_job_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _locked(path: Path) -> int | None:
    """Return a descriptor of a file that is locked for us and still at its path; None if another one has it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(fd)
        if stat.S_ISREG(mine.st_mode) and os.path.samestat(mine, path.lstat()):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _kept_name(name: str) -> str:
    """Return what a file that has ended is called: its name, or the beginning of a long one with its digest."""
    data = os.fsencode(name)
    if len(data) <= MAX_NAME_BYTES:
        return name
    stem, dot, suffix = name.rpartition(".")
    short = os.fsencode(stem)[: MAX_NAME_BYTES - 20].decode("utf-8", "ignore")
    return f"{short}-{hashlib.sha256(data).hexdigest()[:8]}{dot}{suffix}"


def _free(folder: Path, name: str) -> Path:
    """Return a path that nothing has yet: an earlier file of this name stays."""
    path, number = folder / name, 2
    while path.exists():
        stem, dot, suffix = name.rpartition(".")
        path, number = folder / f"{stem}-{number}{dot}{suffix}", number + 1
    return path
