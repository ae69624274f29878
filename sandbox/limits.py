"""Bounds on what one command may use, with units in the names."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30

DEFAULT_OUTPUT_BYTES = 2 * GIB
DEFAULT_OPEN_FILES = 4096
DEFAULT_FILE_BYTES = 64 * GIB


class Limit(enum.StrEnum):
    """A bound on all processes of a command together, by its name in job files and records."""

    MEMORY = "memory"
    CPUS = "cpus"
    PIDS = "pids"
    DISK = "disk"


class Keeper(enum.StrEnum):
    """What keeps a bound, by its name in records."""

    CGROUP_V2 = "cgroup-v2"
    CGROUP_V1 = "cgroup-v1"
    RLIMIT = "rlimit"
    """Counted by the kernel, for a user or a user namespace that the command has to itself."""
    WATCHDOG = "watchdog"
    """Looked at now and then: what goes past it is ended a moment later."""
    NOBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLimit:
    """One bound of a sandbox and what keeps it."""

    limit: Limit
    value: float
    """In bytes, CPUs or processes."""
    by: Keeper

    @property
    def held(self) -> bool:
        """Tell whether a job that requires the bound may run: the kernel keeps it, but the disk, which nothing else can watch."""
        if self.limit is Limit.DISK:
            return self.by is not Keeper.NOBODY
        return self.by in {Keeper.CGROUP_V2, Keeper.CGROUP_V1, Keeper.RLIMIT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one sandbox. ``None`` leaves a bound as the agent-runner has it."""

    memory_bytes: int | None = None
    cpus: float | None = None
    """CPU time per second."""
    pids: int | None = None
    """Processes and threads."""
    disk_bytes: int | None = None
    """What the folders of the workspace take."""
    open_files: int = DEFAULT_OPEN_FILES
    """Of each process."""
    file_bytes: int = DEFAULT_FILE_BYTES
    """Of each file."""
    output_bytes: int = DEFAULT_OUTPUT_BYTES
    """Bound on the log; what comes after is read, counted and dropped."""

    def asked(self) -> dict[Limit, float]:
        """Return the bounds on all processes together that there are to keep."""
        values = {
            Limit.MEMORY: self.memory_bytes,
            Limit.CPUS: self.cpus,
            Limit.PIDS: self.pids,
            Limit.DISK: self.disk_bytes,
        }
        return {limit: value for limit, value in values.items() if value is not None}
