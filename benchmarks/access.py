"""P26: what TLS and issued tokens cost, at both ends: two servers with one agent-runner each, on loopback TCP.

The one in clear takes the token of its state directory, because no server takes calls without any.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from functools import partial

from benchmarks import floors
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading
from benchmarks.staging import Staging
from benchmarks.throughput import jobs_seconds, with_cpu_ms

SLOTS = 8
GAP_S = 0.02


class Access(Group):
    """Throughput of both one after the other, latency of both in turn."""

    goals = (
        Goal("P26", "jobs/s with token and TLS, vs without", 0.8, 0.9, at_most=False),
        Goal("P26", "p50 with token and TLS, vs without", 1.3, 1.15),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start both, and let each run some jobs."""
        self._client = stack.enter_context(ClientProcess())
        self._pair = [
            stack.enter_context(Staging(self.plan, secured=secured, slots=SLOTS))
            for secured in (False, True)
        ]
        for staging in self._pair:
            jobs_seconds(self._client, staging, 50)

    def round(self) -> list[Reading]:
        """Jobs per second of each; then single jobs to each in turn."""
        jobs = self.plan.amount(400, 150)
        (clear_s, clear_ms), (secured_s, secured_ms) = (
            with_cpu_ms(jobs, partial(jobs_seconds, self._client, staging))
            for staging in self._pair
        )
        rates = f"{jobs / secured_s:.0f}/s of {jobs / clear_s:.0f}/s"
        found = self._client.ask(
            "latencies",
            targets=[staging.target for staging in self._pair],
            argv=[floors.TRUE],
            count=self.plan.amount(100, 40),
            gap_s=GAP_S,
        )
        clear, secured = (statistics.median(times) * 1e3 for times in found)
        return [
            Reading(
                clear_s / secured_s, f"{rates}; {secured_ms:.1f} of {clear_ms:.1f} ms CPU a job"
            ),
            Reading(secured / clear, f"{secured:.1f} ms of {clear:.1f} ms"),
        ]
