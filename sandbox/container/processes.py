"""The processes of a container as the engine lists them, for a person who asks."""

from __future__ import annotations

import time
from typing import Any

from sandbox.base import LiveProcess
from sandbox.container.launcher import RESIDENT_SHELL, SCRIPT
from sandbox.live_processes import MAX_PROCESSES, boot_s

PS_ARGUMENTS = "-ewwo pid,ppid,s,times,etimes,args"
"""Of ps(1), which the engine runs on its host."""
_FIELDS = 6
_LAUNCHERS = (f"/bin/sh -c {SCRIPT.partition(chr(10))[0]}", " ".join(RESIDENT_SHELL))


def live_processes(table: Any) -> list[LiveProcess]:
    """Return the rows of ``GET /containers/ID/top`` but the engine's init and our launcher, the oldest first."""
    rows = [row for row in table.get("Processes") or () if len(row) >= _FIELDS]
    pids = {row[0] for row in rows}
    first = {row[0] for row in rows if row[1] not in pids}
    ours = first | {
        row[0] for row in rows if row[1] in first and " ".join(row[5:]).startswith(_LAUNCHERS)
    }
    now_s = boot_s() + time.clock_gettime(time.CLOCK_BOOTTIME)
    shown = [_process(row, now_s) for row in rows if row[0] not in ours]
    return sorted(shown, key=lambda one: (one.start_s, one.pid))[:MAX_PROCESSES]


def _process(row: list[str], now_s: float) -> LiveProcess:
    return LiveProcess(
        pid=int(row[0]),
        parent_pid=int(row[1]),
        command=" ".join(row[5:]),
        state=row[2][:1],
        cpu_s=float(row[3]),
        start_s=now_s - float(row[4]),
    )
