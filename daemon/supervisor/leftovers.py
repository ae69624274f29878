"""Processes that a dead child left behind, found because the daemon is their subreaper.

With PR_SET_CHILD_SUBREAPER the orphans of every descendant become children of the daemon (prctl(2)), however often they
forked or changed their session. A child that the daemon did not spawn is therefore a leftover, and
it can be killed safely: the pid of an unreaped child is not reused.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from sandbox import procfs
from sandbox.procfs import ProcStat

SWEEP_BOUND_S = 5.0
_PAUSE_S = 0.01


class Leftovers:
    """Finds and kills the leftovers of dead children. One per daemon; used by the event loop only."""

    def __init__(
        self, known: Callable[[], set[int]], spared: AbstractSet[int] = frozenset()
    ) -> None:
        """Take who is known now, and the children that are not ours to kill, such as those from before we were a daemon."""
        self._known = known
        self._spared = spared

    def reap(self) -> None:
        """Collect dead orphans; called for each SIGCHLD. Children that we spawned are not touched."""
        for pid in self._orphans():
            stat = procfs.read_stat(pid)
            if stat is not None and not stat.alive:
                procfs.reap_child(pid)

    def kill_once(self) -> list[ProcStat]:
        """Kill every leftover and all that descends from it; return what was found alive."""
        self.reap()
        roots = self._orphans()
        if not roots:
            return []
        processes = procfs.snapshot()
        pids = roots | procfs.descendants(processes, roots)
        found = [processes[pid] for pid in pids if pid in processes and processes[pid].alive]
        for stat in found:
            pidfd = procfs.open_process(stat)
            if pidfd is not None:
                procfs.send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        return found

    async def sweep(self, bound_s: float = SWEEP_BOUND_S) -> list[str]:
        """Kill leftovers until none is left; return what survived the bound, as ``pid (command)``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + bound_s
        while found := self.kill_once():
            if loop.time() >= deadline:
                return [f"{stat.pid} ({procfs.command_line(stat.pid)})" for stat in found]
            await asyncio.sleep(_PAUSE_S)
        return []

    def _orphans(self) -> set[int]:
        return procfs.own_children() - self._known() - self._spared
