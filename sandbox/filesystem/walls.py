"""The Landlock rules of one sandbox: read the system, write the workspace, nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sandbox.base import Network
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.landlock import DEVICE, READ, Rule, Ruleset, kernel_abi, writable
from sandbox.filesystem.system_files import ETC_ENTRIES, SYSTEM_FOLDERS
from sandbox.filesystem.workspace import Workspace

LEFT_BY_JOBS = ("triggers.json", "workflow-output.json", ".workflow.lock")
"""What a command may leave for the runner directly below the job root; empty means nothing."""
_MOST_KEPT = 16
"""Rulesets that wait for the next command in the same folders: what is removed meanwhile keeps its inodes until then."""
_Identity = tuple[int, int]
"""Device and inode of a folder."""
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class LandlockWalls:
    """What is the same for every sandbox: the ABI and the open system paths. One per provider.

    Raises:
        SandboxUnavailableError: This kernel has no Landlock, or it is switched off.
    """

    def __init__(self) -> None:
        self.abi = kernel_abi()
        if self.abi < 1:
            raise SandboxUnavailableError("Landlock is missing from this kernel, or switched off")
        # /proc as a whole: a rule on /proc/self would bind this process' folder, not the command's.
        reads = [*SYSTEM_FOLDERS, *(f"/etc/{name}" for name in ETC_ENTRIES), "/proc"]
        self._rules = [Rule(self.abi, fd, READ) for fd in _open_all(reads)]
        devices = _open_all([f"/dev/{name}" for name in _DEVICES])
        self._rules += [Rule(self.abi, fd, DEVICE) for fd in devices]
        self._kept: dict[tuple[bool, tuple[_Identity, ...]], Ruleset] = {}
        """By whether TCP is denied and by the folders that can be written; the one that was used last is the last."""

    def ruleset(self, workspace: Workspace, network: Network) -> Ruleset:
        """Return the rules for the next command of a sandbox; the caller closes them.

        With trusted files in ``ci``, ``job`` itself can only be read: rights reach down, so a writable ``job`` would make
        ``ci`` writable too. Its other children are writable, among them the files by which a job speaks to the runner.
        """
        deny_tcp = network is Network.OFF
        top = workspace.text
        own = [f"{top}/{name}" for name in ("home", "tmp")]
        if not os.listdir(f"{top}/job/ci"):  # noqa: PTH208  # the hot path
            return self._kept_ruleset([*own, f"{top}/job"], deny_tcp=deny_tcp)
        rules = self._new_ruleset(deny_tcp=deny_tcp)
        try:
            rules.allow_path(workspace.job, READ)
            _make_files(workspace)
            for path in (*own, *_writable_children(workspace)):
                rules.allow_path(path, writable(self.abi))
        except BaseException:
            rules.close()
            raise
        return rules

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        while self._kept:
            self._kept.popitem()[1].close()
        while self._rules:
            os.close(self._rules.pop().path_fd)

    def _kept_ruleset(self, folders: Sequence[str], *, deny_tcp: bool) -> Ruleset:
        """Return the rules of a workspace of which nothing but its folders matters, those of an earlier command if there are.

        Rules are on inodes, not on names, and keep them from being given to other files: the same folders have the same rules.
        """
        key = deny_tcp, tuple([_identity(os.stat(folder)) for folder in folders])  # noqa: PTH116
        kept = self._kept.pop(key, None)
        if kept is None:
            kept = self._new_ruleset(deny_tcp=deny_tcp)
            try:
                key = deny_tcp, tuple([self._allow(kept, folder) for folder in folders])
            except BaseException:
                kept.close()
                raise
            if key in self._kept:  # somebody has moved folders just now
                self._kept.pop(key).close()
        self._kept[key] = kept
        if len(self._kept) > _MOST_KEPT:
            self._kept.pop(next(iter(self._kept))).close()
        return kept.copy()

    def _new_ruleset(self, *, deny_tcp: bool) -> Ruleset:
        """Return what all sandboxes may read and use."""
        rules = Ruleset(self.abi, deny_tcp=deny_tcp)
        try:
            for rule in self._rules:
                rules.add(rule)
        except BaseException:
            rules.close()
            raise
        return rules

    def _allow(self, rules: Ruleset, folder: str) -> _Identity:
        """Permit all rights on a folder; return which one it was."""
        fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            rules.allow(fd, writable(self.abi))
            return _identity(os.fstat(fd))
        finally:
            os.close(fd)


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _make_files(workspace: Workspace) -> None:
    """Make the files that the job could not make itself."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for name in LEFT_BY_JOBS:
        try:
            fd = os.open(workspace.job / name, flags, 0o600)
        except FileExistsError:
            continue
        try:
            if workspace.job_uid is not None:
                os.fchown(fd, workspace.job_uid, workspace.job_uid)
        finally:
            os.close(fd)


def _writable_children(workspace: Workspace) -> list[str]:
    with os.scandir(workspace.job) as entries:
        return [e.path for e in entries if e.name != "ci" and not e.is_symlink()]


def _open_all(paths: list[str]) -> list[int]:
    found: dict[tuple[int, int], int] = {}
    for path in paths:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        identity = os.fstat(fd)
        if (identity.st_dev, identity.st_ino) in found:
            os.close(fd)
        else:
            found[identity.st_dev, identity.st_ino] = fd
    return list(found.values())
