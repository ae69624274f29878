"""What the memory store works out about its jobs: pages, waits, dependents. Scans, where the SQLite store has an index."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from daemon.jobs import lifecycle
from daemon.jobs.memory_queue import MemoryQueue
from daemon.jobs.models import Attempt, Job, NextMoments, Waits
from daemon.jobs.queue_keys import group_key
from daemon.jobs.states import JobState


def filtered(
    jobs: Iterable[Job],
    states: Collection[JobState],
    labels: Mapping[str, str],
    since_us: int,
) -> Iterable[Job]:
    """Return the jobs that pass the filters of ``JobStore.list``."""
    return (
        job
        for job in jobs
        if (not states or job.state in states)
        and job.spec.labels.items() >= labels.items()
        and job.create_us >= since_us
    )


def waits_of(job: Job, seq: int, jobs: Mapping[str, Job], queue: MemoryQueue) -> Waits:
    """Return what keeps a job from being claimed."""
    if job.state is JobState.BLOCKED:
        unmet = (other for other in job.spec.depends_on if not jobs[other].state.final)
        return Waits(dependencies=tuple(unmet))
    if job.state is not JobState.PENDING:
        return Waits()
    waits = Waits(ready_us=job.ready_us, ahead=queue.ahead(job, seq))
    group = job.spec.concurrency
    if group is None or not queue.is_held_back(job):
        return waits
    key = group_key(job.spec)
    holders = tuple(
        other.id for other in jobs.values() if other.state.leased and group_key(other.spec) == key
    )
    return waits._replace(group=group.group, group_holders=holders)


def dependents_after(
    ended: Job, waiting: Iterable[Job], jobs: Mapping[str, Job], now_us: int
) -> list[Job]:
    """Return those of the jobs that depend on an ended one as its end changes them."""
    blocked = [job for job in waiting if job.state is JobState.BLOCKED]
    changed = []
    for job in blocked:
        states = [jobs[job_id].state for job_id in job.spec.depends_on]
        if lifecycle.fails(job, ended.state):
            changed.append(lifecycle.dependency_failed(job, ended.id, ended.state, now_us))
        elif all(state.final for state in states):
            changed.append(lifecycle.released(job, states, now_us))
    return changed


def log_bytes_of(attempts: Iterable[Attempt]) -> int:
    """Return how long the logs of the ended ones among some attempts are together."""
    return sum(attempt.log.length for attempt in attempts if not attempt.state.leased)


def moment(job: Job) -> tuple[bool, int]:
    """Return whether a waiting job waits on the steady clock, and for when."""
    return job.backoff_us > 0, job.ready_us or 0


def next_moments(timed: Iterable[Job]) -> NextMoments:
    """Return the first moments among those of waiting jobs."""
    first: dict[bool, int] = {}
    for job in timed:
        steady, moment_us = moment(job)
        first[steady] = min(moment_us, first.get(steady, moment_us))
    return NextMoments(wall_us=first.get(False), steady_us=first.get(True))
