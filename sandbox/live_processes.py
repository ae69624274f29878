"""What the kernel says about the processes of one command, for a person who asks. Not on the path of any job."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sandbox import procfs
from sandbox.base import LiveProcess
from sandbox.procfs import ProcStat

MAX_PROCESSES = 500
MAX_COMMAND_BYTES = 256 << 10
"""Of one command line. The longest value of a variable is half of it, so no secret that begins early is cut."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def describe(members: Iterable[ProcStat]) -> list[LiveProcess]:
    """Return what is still there of some processes, the oldest first; reads a few files of /proc for each.

    Called per question about an attempt, on a thread.
    """
    booted_s = boot_s()
    found: list[LiveProcess] = []
    for stat in sorted(members, key=lambda stat: (stat.start_ticks, stat.pid)):
        if len(found) == MAX_PROCESSES:
            break
        text = _read(f"/proc/{stat.pid}/stat").decode("utf-8", "replace")
        now = procfs.parse_stat(text) if text else None
        if now is None or now.start_ticks != stat.start_ticks:
            continue
        found.append(
            LiveProcess(
                pid=now.pid,
                parent_pid=now.ppid,
                command=_command_line(now),
                state=now.state,
                cpu_s=_cpu_ticks(text) / _TICKS_PER_S,
                start_s=booted_s + now.start_ticks / _TICKS_PER_S,
            )
        )
    return found


def _command_line(stat: ProcStat) -> str:
    content = _read(f"/proc/{stat.pid}/cmdline", MAX_COMMAND_BYTES)
    return content.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace") or stat.command


def _cpu_ticks(stat_text: str) -> int:
    """Return user and system time, the fields 14 and 15 of proc_pid_stat(5)."""
    fields = stat_text.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def boot_s() -> float:
    """Return when the host was booted, in seconds since the Unix epoch (proc_stat(5))."""
    for line in _read("/proc/stat", 1 << 20).splitlines():
        if line.startswith(b"btime "):
            return float(line.split()[1])
    return 0.0


def _read(path: str, limit: int = 64 << 10) -> bytes:
    """Return the beginning of a file; nothing once the process is gone."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as in procfs
            return file.read(limit)
    except OSError:
        return b""
