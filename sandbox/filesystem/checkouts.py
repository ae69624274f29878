"""What a job could leave in an existing checkout for others to run: git's hooks and configuration, those of editors and agents.

Where folders can be mounted they are read-only to the job. What is new or changed after a command is told with its
result. Links are never followed, and no git is run: a configuration that a job has written is a program.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

_GIT = ".git"
_IN_GIT = ("config", "config.worktree", "hooks")
_BESIDE = (
    ".aider.conf.yml", ".claude", ".codex", ".cursor", ".devcontainer", ".envrc", ".gemini", ".idea",
    ".mcp.json", ".opencode", ".vscode", ".zed",
)  # fmt: skip
_SKIPPED = frozenset({_GIT, "ci", "node_modules", "__pycache__"})
_SAMPLE = ".sample"
_DEPTH = 4
"""How far below the job's root a checkout is looked for: /job/src/group/name/.git is."""
_FOLDERS = 2000
"""How many folders are looked into, the shallow ones first."""
_MARKS = 5000
TOLD = 20

Mark = tuple[int, int, int, int]
"""Inode, mode, size, time of the last change; for folders without the latter two."""


@dataclass(frozen=True, slots=True)
class Checkouts:
    """The checkouts of one workspace before a command, by paths relative to the job's root."""

    folders: tuple[str, ...] = ()
    marks: dict[str, Mark] = field(default_factory=dict)
    """Everything protected that exists, and what is in it."""

    def read_only(self) -> list[str]:
        """Return what is to be mounted read-only."""
        names = [f"{_GIT}/{name}" for name in _IN_GIT] + list(_BESIDE)
        paths = (_below(folder, name) for folder in self.folders for name in names)
        return [path for path in paths if path in self.marks and not self._is_link(path)]

    def _is_link(self, path: str) -> bool:
        """Tell whether a mount would lead elsewhere."""
        return stat.S_ISLNK(self.marks[path][1])

    def ancestors(self) -> list[str]:
        """Return the folders above those, the outer ones first: what is no mount itself could be renamed with all in it."""
        found: set[str] = set()
        for path in self.read_only():
            while path := os.path.dirname(path):  # noqa: PTH120  # relative to what is no path of this process
                found.add(path)
        return sorted(found)


NO_CHECKOUTS = Checkouts()


def find_checkouts(job: Path) -> Checkouts:
    """Look for checkouts below the job's root. Blocks; called before a command if there is anything at all."""
    folders: list[str] = []
    queue = [("", 0)]
    looked = 0
    while queue and looked < _FOLDERS:
        folder, depth = queue.pop(0)
        looked += 1
        names = _subfolders(job / folder)
        if _GIT in names:
            folders.append(folder)
        if depth < _DEPTH:
            inner = sorted(set(names) - _SKIPPED)
            queue += [(_below(folder, name), depth + 1) for name in inner]
    return Checkouts(tuple(folders), _marks(job, folders)) if folders else NO_CHECKOUTS


def planted(job: Path, before: Checkouts) -> tuple[str, ...]:
    """Return what is new or changed in the checkouts that were there before, at most ``TOLD`` paths. Blocks."""
    after = _marks(job, before.folders)
    found = sorted(path for path, mark in after.items() if before.marks.get(path) != mark)
    return tuple(found[:TOLD])


def _marks(job: Path, folders: tuple[str, ...] | list[str]) -> dict[str, Mark]:
    found: dict[str, Mark] = {}
    pending = [_below(folder, f"{_GIT}/{name}") for folder in folders for name in _IN_GIT]
    pending += [_below(folder, name) for folder in folders for name in _BESIDE]
    while pending and len(found) < _MARKS:
        path = pending.pop()
        if path.endswith(_SAMPLE) or _through_link(job, path):
            continue
        with contextlib.suppress(OSError):
            seen = os.lstat(job / path)
            is_folder = os.path.isdir(job / path) and not os.path.islink(job / path)  # noqa: PTH112, PTH114
            size, changed = (0, 0) if is_folder else (seen.st_size, seen.st_mtime_ns)
            found[path] = (seen.st_ino, seen.st_mode, size, changed)
            if is_folder:
                pending += [_below(path, name) for name in os.listdir(job / path)]  # noqa: PTH208
    return found


def _through_link(job: Path, path: str) -> bool:
    """Tell whether a folder above a path is a link: what is behind it is not the checkout's."""
    above = os.path.dirname(path)  # noqa: PTH120
    while above:
        if os.path.islink(job / above):  # noqa: PTH114
            return True
        above = os.path.dirname(above)  # noqa: PTH120
    return False


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
