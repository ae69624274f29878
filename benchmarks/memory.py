"""The memory of processes, as the kernel counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def _status_mb(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024 / 1e6
    raise RuntimeError(f"pid {pid} has no {name}")


def forget_peak_mb(pid: int) -> float:
    """Let the peak start from here where this user may, and return the resident memory."""
    with contextlib.suppress(PermissionError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _status_mb(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """Return the highest resident memory so far."""
    return _status_mb(pid, "VmHWM")


def shared_fairly_mb(pid: int) -> tuple[float, bool]:
    """Return the proportional set size, and whether it had to be estimated.

    Nobody but root may look into the processes of the runner. Then every page of a file counts half.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        return _status_mb(pid, "RssAnon") + _status_mb(pid, "RssFile") / 2, True
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6, False
    raise RuntimeError(f"pid {pid} has no Pss")
