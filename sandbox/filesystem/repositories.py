"""The repositories behind the checkouts of a workspace: what of each git would run or be led by. No git is run, no link followed.

A checkout has its repository in ``.git``, or a file ``.git`` leads to it: that of a submodule is in ``.git/modules``, what a
worktree has for itself in ``.git/worktrees``. All paths are relative to the job's root; what is outside is not the job's.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sandbox.env import JOB_ROOT
from sandbox.errors import TransferRefusedError
from sandbox.filesystem.git_config import Named, named_in
from sandbox.filesystem.transfer import read_file

GIT = ".git"
_CONFIGS = ("config", "config.worktree")
_IN_REPOSITORY = (*_CONFIGS, "hooks", "commondir")
"""A ``commondir`` leads git to another folder for its configuration and hooks."""
_INNER = ("modules", "worktrees")
_LEVELS = 6
"""How deep the repository of a submodule may be below ``modules``: its name may have slashes."""
_LOOKED_INTO = 500
"""How many folders of one repository are looked into for others."""
_INCLUDED = 20
"""How many files of configuration one repository may have."""
_CONFIG_BYTES = 256 << 10
_NAMED = 50
"""How many paths one file of configuration may name."""
_LINE_BYTES = 4096
_HEAD = re.compile(rb"ref: \S.*|[0-9a-f]{40}|[0-9a-f]{64}", re.DOTALL)


def is_repository(job: Path, folder: str) -> bool:
    """Tell whether git takes a folder for a repository; if not, it looks for one above."""
    head = _read(job, f"{folder}/HEAD", _LINE_BYTES)
    if _HEAD.fullmatch(head.strip()) is None:
        return False
    return bool(_read(job, f"{folder}/commondir", _LINE_BYTES)) or all(
        os.path.isdir(job / folder / name)  # noqa: PTH112
        for name in ("objects", "refs")
    )


class Repositories:
    """The repositories of some checkouts. Blocks; made once before a command."""

    def __init__(self, job: Path) -> None:
        self._job = job
        self.found: dict[str, None] = {}
        """Their folders, in the order in which they were found."""
        self.watched: dict[str, None] = {}
        """What git runs or is led by, whether it exists or not."""

    def add_checkout(self, top: str) -> None:
        """Add the repository of a checkout, and those in it."""
        dot_git = below(top, GIT)
        if stat.S_ISDIR(os.lstat(self._job / dot_git).st_mode):
            repository: str | None = dot_git
        else:
            self.watched[dot_git] = None
            line = _read(self._job, dot_git, _LINE_BYTES).decode("utf-8", "replace").strip()
            repository = inside(top, line.removeprefix("gitdir:").strip())
        if repository is not None:
            self._add(repository, top)

    def _add(self, repository: str, top: str | None) -> None:
        common = self._common(repository)
        for folder in {repository: None, common: None}:
            if folder not in self.found:
                self.found[folder] = None
                self.watched |= dict.fromkeys(below(folder, name) for name in _IN_REPOSITORY)
                for inner in self._inner(folder):
                    self._add(inner, None)
            self._add_named(folder, top)

    def _common(self, repository: str) -> str:
        """Return where the configuration is."""
        line = _read(self._job, below(repository, "commondir"), _LINE_BYTES)
        text = line.decode("utf-8", "replace").strip()
        return (inside(repository, text) if text else None) or repository

    def _inner(self, repository: str) -> Iterator[str]:
        """Yield the repositories that a repository has in it."""
        queue = [(below(repository, name), 0) for name in _INNER]
        looked = 0
        while queue and looked < _LOOKED_INTO:
            folder, depth = queue.pop(0)
            looked += 1
            try:
                with os.scandir(self._job / folder) as entries:
                    listed = list(entries)
            except OSError:
                continue
            if any(entry.name == "HEAD" for entry in listed):
                yield folder
            elif depth < _LEVELS:
                folders = (entry for entry in listed if entry.is_dir(follow_symlinks=False))
                queue += [(below(folder, entry.name), depth + 1) for entry in folders]

    def _add_named(self, repository: str, top: str | None) -> None:
        """Add what the configuration names: its other files, and hooks that are not in the repository."""
        pending = [below(repository, name) for name in _CONFIGS]
        read = 0
        while pending and read < _INCLUDED:
            path = pending.pop(0)
            read += 1
            named = self._named_in(path)
            at = top if top is not None else inside(repository, named.worktree)
            for text in named.includes[:_NAMED]:
                file = inside(posixpath.dirname(path), text)
                if file is not None and not os.path.isdir(self._job / file):  # noqa: PTH112
                    self.watched[file] = None
                    pending.append(file)
            for text in named.hooks[:_NAMED]:
                folder = inside(at, text) if at is not None else None
                # Not all of the checkout, or what is above it.
                if folder is not None and folder != at and not f"{at}/".startswith(f"{folder}/"):
                    self.watched[folder] = None

    def _named_in(self, path: str) -> Named:
        return named_in(_read(self._job, path, _CONFIG_BYTES).decode("utf-8", "replace"))


def below(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder}/{name}" if folder else name


def inside(folder: str, path: str) -> str | None:
    """Return where a path leads that is written in a folder of the job; None if that is outside."""
    if not path or path.startswith("~") or "\0" in path:
        return None
    found = posixpath.normpath(posixpath.join(f"{JOB_ROOT}/{folder}", path))
    return found.removeprefix(f"{JOB_ROOT}/") if found.startswith(f"{JOB_ROOT}/") else None


def _read(job: Path, path: str, limit: int) -> bytes:
    try:
        return read_file(job, path, limit)
    except (OSError, TransferRefusedError):
        return b""
