"""P3, P4: how many jobs that do nothing end per second, without walls."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from benchmarks import floors
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation
from benchmarks.machine import own_cpu_ms
from benchmarks.staging import Staging

PLAIN = ("--sandbox-tier", "plain", "--allow-unsandboxed")
IN_FLIGHT = 16


def reading(jobs: int, seconds: float, floor: float, detail: str = "") -> Reading:
    """Return jobs per second as a share of a floor."""
    return Reading(jobs / seconds / floor, f"{jobs / seconds:.0f}/s of {floor:.0f}/s{detail}")


def jobs_seconds(client: ClientProcess, installation: Installation | Staging, jobs: int) -> float:
    """Return how long jobs that do nothing take, one call per job."""
    target = installation.target
    answer = client.ask("each", target=target, argv=[floors.TRUE], jobs=jobs, in_flight=IN_FLIGHT)
    return float(answer)


def with_cpu_ms(jobs: int, work: Callable[[int], float]) -> tuple[float, float]:
    """Return what some work on jobs returns, and the CPU time per job of all that takes part in it.

    The time that passes depends on who else uses the machine, the CPU time hardly.
    """
    before = own_cpu_ms()
    found = work(jobs)
    return found, (own_cpu_ms() - before) / jobs


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
        for installation in self._installations.values():
            jobs_seconds(self._client, installation, 50)

    def round(self) -> list[Reading]:
        """Spawns, then jobs."""
        readings = []
        for slots, installation in self._installations.items():
            floor = floors.rate(slots, self._jobs)
            seconds, cpu = with_cpu_ms(
                self._jobs, partial(jobs_seconds, self._client, installation)
            )
            readings.append(reading(self._jobs, seconds, floor, f"; {cpu:.1f} ms CPU a job"))
        return readings


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
        seconds, cpu = with_cpu_ms(jobs, self._seconds)
        return [reading(jobs, seconds, floor, f"; {cpu:.1f} ms CPU a job")]

    def _seconds(self, jobs: int) -> float:
        target = self._installation.target
        return float(self._client.ask("batch", target=target, argv=[floors.TRUE], jobs=jobs))
