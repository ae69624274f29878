"""P24: kill -9 of an agent-runner whose job is running, until the job's command runs again.

The command itself says when it runs: it writes a byte to a file that is looked at every millisecond.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from contextlib import ExitStack

from benchmarks.bare import own_seconds
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation
from benchmarks.second_agent import SecondAgent
from benchmarks.throughput import PLAIN

BOUND_S = 60.0
GAP_S = 0.1
_SETTLED_S = 0.5
_LOOK_S = 0.001


class Mark:
    """A file to which every run of a command adds a byte."""

    def __init__(self, plan: Plan, name: str) -> None:
        self._path = plan.root / name
        self._path.write_bytes(b"")
        self._path.chmod(0o666)  # started by root, jobs run as somebody else

    @property
    def argv(self) -> list[str]:
        """Return a command that says that it runs, and goes on."""
        return ["/bin/sh", "-c", f"printf x >> {self._path}; exec sleep 600"]

    @property
    def runs(self) -> int:
        """Return how often it ran."""
        return self._path.stat().st_size

    def wait(self, runs: int) -> float:
        """Return when it had run so often.

        Raises:
            RuntimeError: It had not within a minute.
        """
        deadline = time.monotonic() + BOUND_S
        while self.runs < runs:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the command ran {self.runs} times, not {runs}")
            time.sleep(_LOOK_S)
        return time.monotonic()


class Takeover(Group):
    """One kill per installation: the second death within a minute has to wait before it is started again."""

    goals = (
        Goal("P24", "agent-runner killed, its job runs again, vs own p50", 100, 30),
        Goal("P24", "the same, another agent-runner has free slots", 100, 30),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start the client."""
        self._client = stack.enter_context(ClientProcess())
        self._number = 0

    def round(self) -> list[Reading]:
        """Alone, then with another one."""
        return [self._takeover(another=False), self._takeover(another=True)]

    def _takeover(self, *, another: bool) -> Reading:
        self._number += 1
        with Installation(self.plan, *PLAIN) as installation, ExitStack() as stack:
            times = own_seconds(self._client, installation, self.plan.amount(20, 10), GAP_S)
            mark = Mark(self.plan, f"mark-{self._number}")
            target = installation.target
            job_id = self._client.ask("submit", target=target, argv=mark.argv)
            mark.wait(1)
            if another:
                stack.enter_context(SecondAgent(installation))
            pid = installation.pid("agent-runner")
            time.sleep(_SETTLED_S)
            start = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            elapsed = mark.wait(2) - start
            self._client.ask("cancel", target=target, job_id=job_id)
        own = statistics.median(times)
        return Reading(elapsed / own, f"{elapsed * 1000:.0f} ms, p50 {own * 1000:.1f} ms")
