"""The Landlock rules of one sandbox: read the system, write the workspace, nothing else."""

from __future__ import annotations

import os

from sandbox.base import Network
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.landlock import DEVICE, READ, Rule, Ruleset, kernel_abi, writable
from sandbox.filesystem.system_files import ETC_ENTRIES, SYSTEM_FOLDERS
from sandbox.filesystem.workspace import Workspace

LEFT_BY_JOBS = ("triggers.json", "workflow-output.json", ".workflow.lock")
"""What a command may leave for the runner directly below the job root; empty means nothing."""
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

    def ruleset(self, workspace: Workspace, network: Network) -> Ruleset:
        """Return the rules for the next command of a sandbox; the caller closes them.

        With trusted files in ``ci``, ``job`` itself can only be read: rights reach down, so a writable ``job`` would make
        ``ci`` writable too. Its other children are writable, among them the files by which a job speaks to the runner.
        """
        rules = Ruleset(self.abi, deny_tcp=network is Network.OFF)
        try:
            for rule in self._rules:
                rules.add(rule)
            full = writable(self.abi)
            job = [str(workspace.job)]
            if any(workspace.ci.iterdir()):
                rules.allow_path(workspace.job, READ)
                _make_files(workspace)
                job = _writable_children(workspace)
            for path in (str(workspace.home), str(workspace.tmp), *job):
                rules.allow_path(path, full)
        except BaseException:
            rules.close()
            raise
        return rules

    def close(self) -> None:
        """Give the descriptors back. Idempotent."""
        while self._rules:
            os.close(self._rules.pop().path_fd)


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
