"""P3, P4: how many jobs that do nothing end per second, without walls."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import floors
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation

PLAIN = ("--sandbox-tier", "plain", "--allow-unsandboxed")
IN_FLIGHT = 16


def reading(jobs: int, seconds: float, floor: float) -> Reading:
    """Return jobs per second as a share of a floor."""
    return Reading(jobs / seconds / floor, f"{jobs / seconds:.0f}/s of {floor:.0f}/s")


class SingleSubmits(Group):
    """One call per job."""

    goals = (
        Goal("P3", "no-op jobs/s, 8 slots, vs spawns in 8 threads", 0.25, 0.4, at_most=False),
        Goal("P3", "no-op jobs/s, 2 slots, vs spawns in 2 threads", 0.2, 0.4, at_most=False),
    )

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._jobs = plan.amount(400, 150)

    def prepare(self, stack: ExitStack) -> None:
        """Start one installation per number of slots, and let each run some jobs."""
        self._client = stack.enter_context(ClientProcess())
        self._installations = {
            slots: stack.enter_context(Installation(self.plan, *PLAIN, "--slots", str(slots)))
            for slots in (8, 2)
        }
        for slots in self._installations:
            self._seconds(slots, 50)

    def round(self) -> list[Reading]:
        """Spawns, then jobs."""
        readings = []
        for slots in self._installations:
            floor = floors.rate(slots, self._jobs)
            readings.append(reading(self._jobs, self._seconds(slots, self._jobs), floor))
        return readings

    def _seconds(self, slots: int, jobs: int) -> float:
        target = self._installations[slots].target
        answer = self._client.ask(
            "each", target=target, argv=[floors.TRUE], jobs=jobs, in_flight=IN_FLIGHT
        )
        return float(answer)


class BatchSubmit(Group):
    """One call for all jobs."""

    goals = (
        Goal(
            "P4", "500 jobs in one batch, 8 slots, vs spawns in 8 threads", 0.45, 0.7, at_most=False
        ),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start an installation, and let it run some jobs."""
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN, "--slots", "8"))
        self._seconds(50)

    def round(self) -> list[Reading]:
        """Spawns, then jobs."""
        jobs = self.plan.amount(500, 200)
        floor = floors.rate(8, jobs)
        return [reading(jobs, self._seconds(jobs), floor)]

    def _seconds(self, jobs: int) -> float:
        target = self._installation.target
        return float(self._client.ask("batch", target=target, argv=[floors.TRUE], jobs=jobs))
