"""Bounds on what one command may use, with units in the names."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30

DEFAULT_OUTPUT_BYTES = 2 * GIB
DEFAULT_OPEN_FILES = 4096
DEFAULT_FILE_BYTES = 64 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one sandbox. ``None`` leaves a bound as the agent-runner has it."""

    memory_bytes: int | None = None
    """RLIMIT_DATA of each process. A bound on the whole tree needs a control group."""
    pids: int | None = None
    """RLIMIT_NPROC, counted by the kernel over all processes of the user."""
    open_files: int = DEFAULT_OPEN_FILES
    file_bytes: int = DEFAULT_FILE_BYTES
    output_bytes: int = DEFAULT_OUTPUT_BYTES
    """Bound on the log; what comes after is read, counted and dropped."""
