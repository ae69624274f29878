"""Runs jobs that depend on each other here, and those that they trigger.

The queue is the one of the server, in memory: dependencies, conditions, retries, groups and variables mean here what they
mean there. Only leases and labels have no meaning: there is one place, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agent_runner.attempt_control import StopReason
from agent_runner.crew import Crew
from agent_runner.job_spec import JobSpec
from agent_runner.outputs.held_here import HeldOutputs
from agent_runner.secret_source import SecretSource
from daemon.clock import Clock
from daemon.jobs.ids import new_job_id
from daemon.jobs.memory_store import MemoryJobStore
from daemon.jobs.models import AgentIdentity, AgentOffer, Claim, Job, NewJob, NextMoments
from daemon.jobs.states import JobState
from daemon.triggers.following import with_following

OFFER = AgentOffer(agent=AgentIdentity(name="here", incarnation="1"))
LEASE_S = 3650 * 86400.0
"""Nothing ends a lease here."""
MAX_JOBS = 1000
"""With all that they trigger."""
WAKE_BATCH = 1000


class LocalRun:
    """One run. ``run`` once."""

    def __init__(  # noqa: PLR0913 - the parts of one run, joined once
        self,
        crew: Crew,
        clock: Clock,
        *,
        max_parallel: int,
        secrets: Callable[[JobSpec], SecretSource],
        changed: Callable[[Sequence[Job]], None],
        prefixed: bool = True,
    ) -> None:
        """Prepare a run.

        Args:
            crew: Runs attempts.
            clock: Whose times stand in the jobs.
            max_parallel: Attempts at once.
            secrets: Returns where the values of a job's references are.
            changed: Is told all jobs whenever one has begun or ended.
            prefixed: Whether lines of the output begin with the name of their job.
        """
        self._crew = crew
        self._clock = clock
        self._store = MemoryJobStore(clock)
        self._max_parallel = max_parallel
        self._secrets = secrets
        self._changed = changed
        self._prefixed = prefixed
        self._running: set[asyncio.Task[None]] = set()
        self._width = 0

    async def run(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Run jobs, each after those that it depends on, until all have ended; return them with what they triggered."""
        async with self._crew.held_outputs(new_job_id()) as held:
            return await self._run(jobs, held)

    async def _run(self, jobs: Sequence[NewJob], held: HeldOutputs) -> list[Job]:
        await self._store.submit([_unlabelled(job) for job in jobs])
        stopping = asyncio.ensure_future(self._crew.stopping.wait())
        try:
            while True:
                moments = await self._store.wake_due(WAKE_BATCH)
                if self._crew.stopping.is_set():
                    await self._cancel_waiting()
                else:
                    await self._start(held)
                found = await self.jobs()
                self._changed(found)
                if all(job.state.final for job in found):
                    return found
                await self._wait(stopping, moments)
        except BaseException:
            self._crew.stop(StopReason.CANCEL, 0)
            raise
        finally:
            stopping.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def jobs(self) -> list[Job]:
        """Return all jobs in the order in which they were accepted."""
        page = await self._store.list((), MAX_JOBS + 1, "")
        return list(reversed(page.jobs))

    async def _start(self, held: HeldOutputs) -> None:
        free = self._max_parallel - len(self._running)
        for claim in await self._store.claim(OFFER, free, LEASE_S):
            task = asyncio.create_task(self._attempt(claim, held))
            self._running.add(task)

    async def _attempt(self, claim: Claim, held: HeldOutputs) -> None:
        job_id, attempt, _ = claim.lease
        name = "".join(char if char.isprintable() else "?" for char in claim.spec.name)
        self._width = max(self._width, len(name))
        prefix = f"{name:{self._width}} | " if self._prefixed else ""
        before = [await self._store.get(other) for other in claim.spec.depends_on]
        hands = held.of(job_id, claim.spec.inputs, [(job.id, job.spec.name) for job in before])
        outcome = await self._crew.run(
            job_id, attempt, claim.spec, self._secrets(claim.spec), prefix, hands
        )
        outcome, following = await with_following(self._store, job_id, outcome)
        await self._store.finish(claim.lease, outcome, [_unlabelled(job) for job in following])

    async def _cancel_waiting(self) -> None:
        """Cancel what has not begun; the last ones first, because a job that is cancelled ends those that depend on it."""
        for waiting in reversed(await self.jobs()):
            job = await self._store.get(waiting.id)
            if job.state in (JobState.PENDING, JobState.BLOCKED):
                await self._store.cancel(job.id)

    async def _wait(self, stopping: asyncio.Future[Any], moments: NextMoments) -> None:
        """Wait until something has ended, a moment has come, or all is to end."""
        waited: set[asyncio.Future[Any]] = {*self._running}
        if not stopping.done():
            waited.add(stopping)
        left_s = self._left_s(moments)
        await asyncio.wait(waited, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in self._running if task.done()]:
            self._running.discard(task)
            task.result()

    def _left_s(self, moments: NextMoments) -> float | None:
        waits = []
        if moments.wall_us is not None:
            waits.append(moments.wall_us - self._clock.now_us())
        if moments.steady_us is not None:
            waits.append(moments.steady_us - self._clock.steady_us())
        return max(0.0, min(waits) / 1e6) if waits else None


def _unlabelled(job: NewJob) -> NewJob:
    return job._replace(spec=replace(job.spec, labels={}))
