"""What a job could leave in an existing checkout for others to run: git's hooks and configuration, those of editors and agents.

Where folders can be mounted they are read-only to the job. What is new or changed after a command is told with its
result. Links are never followed, and no git is run: a configuration that a job has written is a program.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.filesystem.repositories import GIT, Repositories, below, is_repository

_BESIDE = (
    ".aider.conf.yml", ".amazonq", ".claude", ".codex", ".continue", ".cursor", ".devcontainer",
    ".devcontainer.json", ".dir-locals.el", ".envrc", ".exrc", ".fleet", ".gdbinit", ".gemini", ".idea",
    ".kiro", ".lldbinit", ".mcp.json", ".nvim.lua", ".opencode", ".roo", ".vs", ".vscode", ".windsurf", ".zed",
)  # fmt: skip
_CI = "ci"
_SKIPPED = frozenset({GIT, "node_modules", "__pycache__"})
_SAMPLE = ".sample"
_DEPTH = 4
"""How far below the job's root a checkout is looked for: /job/src/group/name/.git is."""
_FOLDERS = 2000
"""How many folders are looked into, the shallow ones first."""
_ENTRIES = 20_000
"""How many entries of a folder are looked at; a job may make millions."""
_MARKS = 5000
_MOUNTS = 500
"""How many paths are read-only; bubblewrap takes 9,000 words, and each mount costs 0.1 ms. More are told only."""
TOLD = 20

Mark = tuple[int, int, int, int]
"""Inode, mode, size, time of the last change; for folders without the latter two."""


@dataclass(frozen=True, slots=True)
class Checkouts:
    """The checkouts of one workspace before a command, by paths relative to the job's root."""

    folders: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    """Everything that is protected, or would be if it existed."""
    repositories: tuple[str, ...] = ()
    """What git takes for a repository."""
    marks: dict[str, Mark] = field(default_factory=dict)
    """What of the watched exists, and what is in it."""

    def read_only(self) -> list[str]:
        """Return what is to be mounted read-only, what is in other folders of it left out."""
        found: dict[str, None] = {}
        for path in sorted(self.watched):
            if path in self.marks and not self._is_link(path) and not _has_above(path, found):
                found[path] = None
        return list(found)[:_MOUNTS]

    def _is_link(self, path: str) -> bool:
        """Tell whether a mount would lead elsewhere."""
        return stat.S_ISLNK(self.marks[path][1])

    def ancestors(self) -> list[str]:
        """Return the folders above those, the outer ones first: what is no mount itself could be renamed with all in it."""
        return sorted({above for path in self.read_only() for above in _above(path)})


NO_CHECKOUTS = Checkouts()


def find_checkouts(job: Path) -> Checkouts:
    """Look for checkouts below the job's root. Blocks; called before a command if there is anything at all."""
    folders: list[str] = []
    queue = [("", 0)]
    looked = 0
    while queue and looked < _FOLDERS:
        folder, depth = queue.pop(0)
        looked += 1
        is_checkout, names = _look_into(job / folder)
        if is_checkout:
            folders.append(folder)
        if depth < _DEPTH:
            inner = sorted(names - _SKIPPED - ({_CI} if not folder else set()))
            queue += [(below(folder, name), depth + 1) for name in inner]
    return _checkouts(job, folders) if folders else NO_CHECKOUTS


def planted(job: Path, before: Checkouts) -> tuple[str, ...]:
    """Return what is new or changed in the checkouts that were there before, at most ``TOLD`` paths. Blocks."""
    after = _marks(job, before.watched)
    found = {path for path, mark in after.items() if before.marks.get(path) != mark}
    # What is no repository any more leads git to one above it.
    found |= {folder for folder in before.repositories if not is_repository(job, folder)}
    # What is in a folder only if there is room for it: a job that fills one hides no other.
    inner = found.difference(before.watched, before.repositories)
    return tuple(sorted([*sorted(found - inner), *sorted(inner)][:TOLD]))


def _checkouts(job: Path, folders: list[str]) -> Checkouts:
    repositories = Repositories(job)
    for folder in folders:
        with contextlib.suppress(OSError):
            repositories.add_checkout(folder)
    watched = dict(repositories.watched)
    watched |= dict.fromkeys(below(folder, name) for folder in folders for name in _BESIDE)
    valid = tuple(folder for folder in repositories.found if is_repository(job, folder))
    return Checkouts(tuple(folders), tuple(watched), valid, _marks(job, tuple(watched)))


def _marks(job: Path, watched: tuple[str, ...]) -> dict[str, Mark]:
    found: dict[str, Mark] = {}
    links: dict[str, bool] = {"": False}
    top, pending = str(job), deque(watched)
    while pending and len(found) < _MARKS:
        path = pending.popleft()
        if path.endswith(_SAMPLE) or _through_link(top, path, links):
            continue
        with contextlib.suppress(OSError):
            seen = os.lstat(f"{top}/{path}")
            is_folder = stat.S_ISDIR(seen.st_mode)
            size, changed = (0, 0) if is_folder else (seen.st_size, seen.st_mtime_ns)
            found[path] = (seen.st_ino, seen.st_mode, size, changed)
            if is_folder:
                with os.scandir(f"{top}/{path}") as entries:
                    listed = itertools.islice(entries, _MARKS)
                    pending += [below(path, entry.name) for entry in listed]
    return found


def _through_link(top: str, path: str, links: dict[str, bool]) -> bool:
    """Tell whether a folder above a path is a link: what is behind it is not the checkout's."""
    above = path.rpartition("/")[0]
    if above not in links:
        links[above] = os.path.islink(f"{top}/{above}") or _through_link(top, above, links)  # noqa: PTH114
    return links[above]


def _look_into(folder: Path) -> tuple[bool, set[str]]:
    """Tell whether a folder is a checkout, and return the folders in it."""
    is_checkout, names = False, set()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in itertools.islice(entries, _ENTRIES):
            if entry.is_dir(follow_symlinks=False):
                names.add(entry.name)
    with contextlib.suppress(OSError):
        is_checkout = not stat.S_ISLNK(os.lstat(folder / GIT).st_mode)
    return is_checkout, names


def _above(path: str) -> list[str]:
    """Return the folders above a path, the inner ones first."""
    found = []
    while path := os.path.dirname(path):  # noqa: PTH120  # relative to what is no path of this process
        found.append(path)
    return found


def _has_above(path: str, found: dict[str, None]) -> bool:
    return any(above in found for above in _above(path))
