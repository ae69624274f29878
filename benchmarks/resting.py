"""P22, P25: what an installation takes while nothing happens, the sandboxes that it has built ahead included."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import ClassVar

from benchmarks import memory
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import PROCESSES, Installation
from benchmarks.machine import cpu_ticks
from sandbox import procfs

STORED_PEER_MB = 56.0
"""A pm2 daemon on another day; ``benchmarks.peers`` measures a live one."""
SETTLED_S = 3.0


class Resting(Group):
    """An installation as it comes that has run one job and is left alone."""

    goals: ClassVar[tuple[Goal, ...]] = (
        Goal("P22", "idle memory of all three, vs a pm2 daemon", 1.5, 1.1),
        Goal("P22", "idle memory of a further agent-runner", 30, 22, unit="MB"),
        Goal("P25", "idle CPU of all three, of one core", 1, 0.3, unit="%"),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start an installation, run a job, wait until it rests."""
        installation = stack.enter_context(Installation(self.plan))
        installation.run("jobs", "submit", "--wait", "--", "/bin/true")
        self._pids = [installation.pid(name) for name in PROCESSES]
        time.sleep(SETTLED_S)

    def peer(self) -> tuple[float, str]:
        """Return the memory of the peer and where the number comes from; called per round."""
        return STORED_PEER_MB, "stored peer"

    def round(self) -> list[Reading]:
        """Memory, then CPU time over some seconds."""
        return [*self.memory(), self._cpu()]

    def memory(self) -> tuple[Reading, Reading]:
        """Return that of all three as a share of the peer's, and that of the agent-runner."""
        agent = self._pids[-1]
        waiting = procfs.descendants(procfs.snapshot(), {agent}) - {agent}
        found = [memory.shared_fairly_mb(pid) for pid in (*self._pids, *sorted(waiting))]
        how = ", estimated" if any(estimated for _, estimated in found) else ""
        sizes = [size for size, _ in found]
        ahead = sum(sizes[len(self._pids) :])
        parts = " + ".join(f"{size:.1f}" for size in (*sizes[: len(self._pids)], ahead))
        peer, origin = self.peer()
        detail = f"{parts} = {sum(sizes):.0f} MB of {peer:.0f} ({origin}){how}"
        own = sizes[len(self._pids) - 1] + ahead
        built = f"{ahead:.1f} MB of it in {len(waiting)} processes that were built ahead{how}"
        return Reading(sum(sizes) / peer, detail), Reading(own, built)

    def _cpu(self) -> Reading:
        seconds = self.plan.amount(10, 7)
        before = sum(map(cpu_ticks, self._pids))
        time.sleep(seconds)
        ticks = sum(map(cpu_ticks, self._pids)) - before
        return Reading(ticks / seconds, f"{ticks * 10:.0f} ms in {seconds} s")
