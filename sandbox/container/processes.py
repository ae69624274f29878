"""The processes of a container as the engine lists them, for a person who asks."""

from __future__ import annotations

import re
import time
from typing import Any

from sandbox.base import LiveProcess
from sandbox.container.engine import Engine
from sandbox.container.launcher import RESIDENT_SHELL, SCRIPT
from sandbox.live_processes import MAX_PROCESSES, boot_s

_OF_DOCKER = "-ewwo pid,ppid,s,times,etimes,args"
"""Of ps(1), which the engine runs on its host."""
_OF_PODMAN = "pid,ppid,state,time,etime,args"
"""It looks itself, in the container, and takes what it does not know for arguments of a ps(1) of the image."""
_FIELDS = 6
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9.]+)(h|m(?!s)|s|ms|µs|ns|$)")
_LAUNCHERS = (f"/bin/sh -c {SCRIPT.partition(chr(10))[0]}", " ".join(RESIDENT_SHELL))


async def live_processes(engine: Engine, container: str) -> list[LiveProcess]:
    """Return what runs in a container at this moment, but the engine's init and our launcher.

    Raises:
        SandboxError: It does not run any more, or the engine does not say.
    """
    what = _OF_PODMAN if engine.is_podman else _OF_DOCKER
    return processes_in(await engine.get_json(f"/containers/{container}/top", ps_args=what))


def processes_in(table: Any) -> list[LiveProcess]:
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
        cpu_s=_seconds(row[3]),
        start_s=now_s - _seconds(row[4]),
    )


def _seconds(text: str) -> float:
    """Read a number of seconds, or a duration as Go writes it: ``1h2m3.5s``."""
    return sum(float(number) * _SECONDS[unit or "s"] for number, unit in _PART.findall(text))
