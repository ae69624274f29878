"""P7: how soon somebody who follows a log sees its first byte."""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import Installation
from benchmarks.throughput import PLAIN

GAP_S = 0.25


class FirstLine(Group):
    """`echo hi; sleep 2` followed, against the whole life of `echo hi`."""

    goals = (Goal("P7", "submit to first log byte, vs submit to end", 1.3, 1.1),)

    def prepare(self, stack: ExitStack) -> None:
        """Start an installation with slots for the jobs that go on."""
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN, "--slots", "8"))
        self._ask(2)

    def round(self) -> list[Reading]:
        """Both in turn, with idle gaps."""
        first, finished = (statistics.median(times) for times in self._ask(self.plan.amount(16, 6)))
        detail = f"p50 {first * 1000:.1f} ms, of {finished * 1000:.1f} ms"
        return [Reading(first / finished, detail)]

    def _ask(self, count: int) -> list[list[float]]:
        target = self._installation.target
        found: list[list[float]] = self._client.ask(
            "first_bytes", target=target, count=count, gap_s=GAP_S
        )
        return found
