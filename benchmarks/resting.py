"""P22, P25: what an installation takes while nothing happens."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import memory
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import PROCESSES, Installation
from benchmarks.machine import cpu_ticks
from benchmarks.throughput import PLAIN

STORED_PEER_MB = 56.0
"""A pm2 daemon, measured where pm2 was installed."""
_SETTLED_S = 3.0


class Resting(Group):
    """An installation that has run one job and is left alone."""

    goals = (
        Goal("P22", "idle memory of all three, vs a pm2 daemon", 1.5, 1.1),
        Goal("P22", "idle memory of a further agent-runner", 30, 22, unit="MB"),
        Goal("P25", "idle CPU of all three, of one core", 1, 0.3, unit="%"),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start an installation, run a job, wait until it rests."""
        installation = stack.enter_context(Installation(self.plan, *PLAIN))
        installation.run("jobs", "submit", "--wait", "--", "/bin/true")
        self._pids = [installation.pid(name) for name in PROCESSES]
        self._peer, self._origin = _peer_mb(self.plan.root)
        time.sleep(_SETTLED_S)

    def round(self) -> list[Reading]:
        """Memory, then CPU time over some seconds."""
        sizes, estimates = zip(*map(memory.shared_fairly_mb, self._pids), strict=True)
        how = ", estimated" if any(estimates) else ""
        parts = " + ".join(f"{size:.0f}" for size in sizes)
        total = sum(sizes)
        detail = f"{parts} = {total:.0f} MB of {self._peer:.0f} ({self._origin}){how}"
        return [
            Reading(total / self._peer, detail),
            Reading(sizes[-1], how.removeprefix(", ")),
            self._cpu(),
        ]

    def _cpu(self) -> Reading:
        seconds = self.plan.amount(10, 7)
        before = sum(map(cpu_ticks, self._pids))
        time.sleep(seconds)
        ticks = sum(map(cpu_ticks, self._pids)) - before
        return Reading(ticks / seconds, f"{ticks * 10:.0f} ms in {seconds} s")


def _peer_mb(root: Path) -> tuple[float, str]:
    """Return the memory of a pm2 daemon and where the number comes from."""
    program = shutil.which("pm2")
    if program is None:
        return STORED_PEER_MB, "stored peer"
    home = root / "pm2"
    env = {"PM2_HOME": str(home), "HOME": str(root), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    try:
        subprocess.run([program, "ping"], env=env, capture_output=True, check=True)
        time.sleep(_SETTLED_S)
        return memory.shared_fairly_mb(int((home / "pm2.pid").read_text()))[0], "pm2"
    except (OSError, subprocess.CalledProcessError):
        return STORED_PEER_MB, "stored peer"
    finally:
        subprocess.run([program, "kill"], env=env, capture_output=True, check=False)
