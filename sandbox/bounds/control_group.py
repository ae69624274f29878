"""One group of processes that the kernel bounds together: made before a command, removed when its tree is dead."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from pathlib import Path
from typing import Protocol

from sandbox.limits import Keeper, Limit, Limits

PERIOD_US = 100_000
"""Over which CPU time is counted; the kernel's default."""
_MIN_QUOTA_US = 1000
_REMOVAL_BOUND_S = 2.0
_PAUSE_S = 0.005


class Group(Protocol):
    """A folder of one tree of control groups."""

    path: Path

    def bound(self, limits: Limits, extra_pids: int) -> None:
        """Write the bounds that this tree keeps. Called once, before a process is in it.

        Raises:
            OSError: The kernel refused.
        """
        ...

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for the bound on memory; 0 where it is not kept here."""
        ...


class GroupV1:
    """A folder of a tree of version 1."""

    def __init__(self, path: Path, keeps: frozenset[Limit]) -> None:
        self.path = path
        self._keeps = keeps

    def bound(self, limits: Limits, extra_pids: int) -> None:
        """Write the bounds; see ``Group.bound``."""
        if Limit.MEMORY in self._keeps and limits.memory_bytes is not None:
            _write(self.path / "memory.limit_in_bytes", limits.memory_bytes)
            swap = self.path / "memory.memsw.limit_in_bytes"
            if swap.exists():
                _write(swap, limits.memory_bytes)
            else:  # a kernel that does not count swap
                with contextlib.suppress(OSError):
                    _write(self.path / "memory.swappiness", 0)
        if Limit.PIDS in self._keeps and limits.pids is not None:
            _write(self.path / "pids.max", limits.pids + extra_pids)
        if Limit.CPUS in self._keeps and limits.cpus is not None:
            _write(self.path / "cpu.cfs_period_us", PERIOD_US)
            _write(self.path / "cpu.cfs_quota_us", _quota_us(limits.cpus))

    def oom_kills(self) -> int:
        """Return the kernel's count; see ``Group.oom_kills``."""
        return _field(self.path / "memory.oom_control", "oom_kill")


class GroupV2:
    """A folder of the tree of version 2."""

    def __init__(self, path: Path, keeps: frozenset[Limit]) -> None:
        self.path = path
        self._keeps = keeps

    def bound(self, limits: Limits, extra_pids: int) -> None:
        """Write the bounds; see ``Group.bound``."""
        if Limit.MEMORY in self._keeps and limits.memory_bytes is not None:
            _write(self.path / "memory.max", limits.memory_bytes)
            for name, value in (("memory.swap.max", 0), ("memory.oom.group", 1)):
                if (self.path / name).exists():
                    _write(self.path / name, value)
        if Limit.PIDS in self._keeps and limits.pids is not None:
            _write(self.path / "pids.max", limits.pids + extra_pids)
        if Limit.CPUS in self._keeps and limits.cpus is not None:
            _write(self.path / "cpu.max", f"{_quota_us(limits.cpus)} {PERIOD_US}")

    def oom_kills(self) -> int:
        """Return the kernel's count; see ``Group.oom_kills``."""
        return _field(self.path / "memory.events", "oom_kill")


class ControlGroup:
    """The groups of one command, one in each tree that keeps a bound of it."""

    def __init__(self, groups: list[Group], keepers: dict[Limit, Keeper]) -> None:
        self._groups = groups
        self.keepers = keepers
        """What keeps which bound."""

    def open_doors(self) -> list[int]:
        """Return descriptors to which a process writes ``0`` to be in the groups; the caller closes them.

        Raises:
            OSError: A group is gone, or the host has no descriptor left.
        """
        with contextlib.ExitStack() as undo:
            doors: list[int] = []
            for group in self._groups:
                door = os.open(group.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                undo.callback(os.close, door)
                doors.append(door)
            undo.pop_all()
        return doors

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for the bound on memory. Called now and then, and at the end."""
        return sum(group.oom_kills() for group in self._groups)

    def try_remove(self) -> bool:
        """Remove the groups; tell whether nothing was in the way. Called first, when the tree is dead; takes 0.1 ms."""
        try:
            for group in self._groups:
                with contextlib.suppress(FileNotFoundError):
                    group.path.rmdir()
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """Remove the groups, and kill what is still in them. Blocks.

        Raises:
            OSError: A process does not die; the next start tries again.
        """
        for group in self._groups:
            remove_group(group.path)


def remove_group(path: Path) -> None:
    """Remove a group without groups below it, and kill what is in it. A missing one is no error.

    Raises:
        OSError: A process in it does not die.
    """
    deadline = time.monotonic() + _REMOVAL_BOUND_S
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            _kill_members(path)
            # Nothing tells when the last process of a group has gone on every version; this is not the usual way.
            time.sleep(_PAUSE_S)
        else:
            return


def members(path: Path) -> list[int]:
    """Return the processes of a group, as this process numbers them; none of a group that is gone."""
    try:
        return [int(pid) for pid in (path / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def _kill_members(path: Path) -> None:
    try:
        (path / "cgroup.kill").write_text("1")
    except OSError:  # version 1, or a kernel before 5.14
        for pid in members(path):
            # What is in a group of ours is ours to kill; between the read and the signal a pid is not given away again
            # as long as its process is not reaped, which for orphans is our own doing.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if pid > 1:
                    os.kill(pid, signal.SIGKILL)


def _quota_us(cpus: float) -> int:
    return max(_MIN_QUOTA_US, round(cpus * PERIOD_US))


def _write(path: Path, value: object) -> None:
    # Not write_text: with O_CREAT the kernel answers EACCES for a file that a controller does not have.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
