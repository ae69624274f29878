"""The backends of the JobStore port, and small makers of what the suite feeds them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, LogSummary, Outcome
from daemon.clock import Clock
from daemon.jobs.memory_store import MemoryJobStore
from daemon.jobs.models import AgentIdentity, AgentOffer, Claim, Job, NewJob
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.store import JobStore

BACKENDS: dict[str, Callable[[Path, Clock], JobStore]] = {
    "memory": lambda _, clock: MemoryJobStore(clock),
    "sqlite": lambda folder, clock: SqliteJobStore(folder / "jobs.db", clock),
}

LEASE_S = 30.0

OFFER = AgentOffer(agent=AgentIdentity(name="agent", incarnation="1"))
OTHER_OFFER = AgentOffer(agent=AgentIdentity(name="other", incarnation="1"))
SUCCESS = Outcome(end_reason=EndReason.EXITED, exit_code=0, log=LogSummary(length=3, sha256="abc"))
INTERRUPTED = Outcome(end_reason=EndReason.CANCELLED, interrupted=True)

_numbers = itertools.count()


def new_job(
    *,
    request_id: str | None = None,
    payload: str = "payload",
    priority: int = 0,
    labels: dict[str, str] | None = None,
    **fields: Any,
) -> NewJob:
    """Return a valid job with an id of its own."""
    return NewJob(
        id=f"job{next(_numbers)}",
        spec=JobSpec(argv=("true",), priority=priority, labels=labels or {}, **fields),
        request_id=request_id,
        payload_sha256=payload,
    )


async def submitted(store: JobStore, count: int = 1, priority: int = 0) -> list[str]:
    """Submit jobs in one call and return their ids."""
    jobs = await store.submit([new_job(priority=priority) for _ in range(count)])
    return [job.id for job in jobs]


async def submitted_one(store: JobStore, **fields: Any) -> str:
    """Submit one job and return its id."""
    (job,) = await store.submit([new_job(**fields)])
    return job.id


async def finished(store: JobStore, outcome: Outcome = SUCCESS, offer: AgentOffer = OFFER) -> Job:
    """Claim the best job and end its attempt."""
    (claim,) = await store.claim(offer, 1, LEASE_S)
    return await store.finish(claim.lease, outcome)


async def running(store: JobStore, offer: AgentOffer = OFFER) -> Claim:
    """Submit one job and claim it; the queue is empty before."""
    await submitted(store)
    (claim,) = await store.claim(offer, 1, LEASE_S)
    return claim


async def claimed_ids(store: JobStore, offer: AgentOffer = OFFER, limit: int = 1000) -> list[str]:
    """Claim and return the ids in the order of the claim."""
    return job_ids(await store.claim(offer, limit, LEASE_S))


def job_ids(claims: Sequence[Claim]) -> list[str]:
    """Return the ids of claimed jobs."""
    return [claim.lease.job_id for claim in claims]
