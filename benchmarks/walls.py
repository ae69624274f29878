"""P8, P9: what the walls of the sandbox cost, against no walls and against bubblewrap alone."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from functools import partial

from benchmarks import floors
from benchmarks.bare_bubblewrap import BareBubblewrap
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import Installation
from benchmarks.throughput import PLAIN, jobs_seconds, reading

GAP_S = 0.1


class Landlock(Group):
    """The Landlock tier against the plain one, both with two slots."""

    goals = (
        Goal("P8", "landlock jobs/s vs own plain, 2 slots", 0.6, 0.75, at_most=False),
        Goal("P8", "landlock p50 added, vs an idle plain spawn", 1.0, 0.5),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start both, and let each run some jobs."""
        self._client = stack.enter_context(ClientProcess())
        flags = (("--sandbox-tier", "landlock"), PLAIN)
        self._both = [
            stack.enter_context(Installation(self.plan, *tier, "--slots", "2")) for tier in flags
        ]
        for installation in self._both:
            jobs_seconds(self._client, installation, 50)

    def round(self) -> list[Reading]:
        """Throughput of both, then latency of both in turn."""
        jobs = self.plan.amount(300, 120)
        walled, plain = (jobs / jobs_seconds(self._client, one, jobs) for one in self._both)
        throughput = Reading(walled / plain, f"{walled:.0f}/s of {plain:.0f}/s")
        return [throughput, self._latency(self.plan.amount(30, 10))]

    def _latency(self, count: int) -> Reading:
        spawn = floors.idle_spawn_ms(count, GAP_S)
        targets = [installation.target for installation in self._both]
        found = self._client.ask(
            "latencies", targets=targets, argv=[floors.TRUE], count=count, gap_s=GAP_S
        )
        walled, plain = (statistics.median(times) * 1000 for times in found)
        detail = f"{walled:.1f} - {plain:.1f} ms, spawn {spawn:.2f} ms"
        return Reading((walled - plain) / spawn, detail)


class Bubblewrap(Group):
    """The bubblewrap tier against bubblewrap alone."""

    goals = (
        Goal("P9", "bwrap jobs/s, 2 slots, vs bare bwrap in 2 threads", 0.6, 0.85, at_most=False),
        Goal("P9", "bwrap jobs/s, 8 slots, vs bare bwrap in 8 threads", 0.6, 0.85, at_most=False),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start one installation per number of slots, and let each run some jobs."""
        self._bare = BareBubblewrap(self.plan.root / "bare", stack)
        self._client = stack.enter_context(ClientProcess())
        tier = ("--sandbox-tier", "bwrap", "--slots")
        self._installations = {
            slots: stack.enter_context(Installation(self.plan, *tier, str(slots)))
            for slots in (2, 8)
        }
        for installation in self._installations.values():
            jobs_seconds(self._client, installation, 20)

    def round(self) -> list[Reading]:
        """Half of the bare ones, the jobs, the other half."""
        jobs = self.plan.amount(150, 60)
        return [self._ratio(slots, jobs) for slots in self._installations]

    def _ratio(self, slots: int, jobs: int) -> Reading:
        bare = partial(floors.rate, slots, jobs // 2, self._bare.spawn)
        before = bare()
        seconds = jobs_seconds(self._client, self._installations[slots], jobs)
        time.sleep(0.05)  # what the kernel still takes down
        return reading(jobs, seconds, statistics.harmonic_mean([before, bare()]))


class AddedLatency(Group):
    """What the bubblewrap tier adds to an idle job, built ahead and not, against what bubblewrap adds to a spawn."""

    goals = (
        Goal("P10", "bwrap p50 added over plain, vs bare bwrap over a spawn; cold", 1.6, 1.2),
        Goal("P10", "the same with warm slots", 1.6, 0.4),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start one installation of each kind, and let each run some jobs."""
        self._bare = BareBubblewrap(self.plan.root / "idle", stack)
        self._client = stack.enter_context(ClientProcess())
        tier = ("--sandbox-tier", "bwrap", "--slots", "2")
        cold, warm = (
            stack.enter_context(
                Installation(self.plan, *tier, settings={"RUNNER_WARM_SLOTS": count})
            )
            for count in ("0", "2")
        )
        plain = stack.enter_context(Installation(self.plan, *PLAIN, "--slots", "2"))
        self._all = [plain, cold, warm]
        for installation in self._all:
            jobs_seconds(self._client, installation, 20)

    def round(self) -> list[Reading]:
        """All three in turn, and both floors in turn before and after."""
        count = self.plan.amount(30, 12)
        before = self._floor_ms(count)
        targets = [installation.target for installation in self._all]
        found = self._client.ask(
            "latencies", targets=targets, argv=[floors.TRUE], count=count, gap_s=GAP_S
        )
        plain, *walled = (statistics.median(times) * 1000 for times in found)
        floor = statistics.mean([before, self._floor_ms(count)])
        return [
            Reading(
                (each - plain) / floor, f"{each:.1f} - {plain:.1f} ms; bwrap adds {floor:.1f} ms"
            )
            for each in walled
        ]

    def _floor_ms(self, count: int) -> float:
        with_walls, without = self._bare.idle_least_ms(count, GAP_S)
        return with_walls - without
