"""What every JobStore does when jobs that have ended are removed."""

from __future__ import annotations

from daemon.clock import FixedClock
from daemon.jobs.models import Excess, Removed
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    SUCCESS,
    finished,
    running,
    submitted,
    submitted_one,
)

LIMIT = 3


async def end_all(store: JobStore) -> None:
    for claim in await store.claim(OFFER, 1000, LEASE_S):
        await store.finish(claim.lease, SUCCESS)


async def test_by_age_behind_younger_ones(store: JobStore, clock: FixedClock):
    """What waited long and ended late keeps nobody who ended before it; of many, each call takes its limit."""
    late = await submitted(store, LIMIT + 1, priority=-1)
    early = await submitted(store, LIMIT + 1)
    for _ in early:
        await finished(store)
    clock.advance(10)
    await end_all(store)
    await submitted(store)
    over_age = Excess(before_us=clock.now_us() - 5_000_000)

    removed = [await store.remove_ended(over_age, (), LIMIT) for _ in range(3)]

    assert [step.jobs for step in removed] == [LIMIT, 1, 0]
    kept = {job.id for job in (await store.list([JobState.SUCCEEDED], 100, "")).jobs}
    assert kept == {*late}


async def test_by_count_and_by_age(store: JobStore, clock: FixedClock):
    """The count takes the oldest first, and what it takes counts for the limit."""
    late = await submitted(store, 2, priority=-1)
    early = await submitted(store, 3)
    for _ in early:
        await finished(store)
    clock.advance(10)
    await end_all(store)
    (newest,) = await submitted(store)
    excess = Excess(before_us=clock.now_us() - 5_000_000, jobs=1)

    assert await store.remove_ended(excess, (), LIMIT) == Removed(jobs=LIMIT, log_bytes=9)

    kept = [job.id for job in (await store.list((), 100, "")).jobs]
    assert kept == [newest, early[2], late[1]]


async def test_end_of_a_job_whose_dependent_is_gone(store: JobStore):
    """It ends as any other."""
    claim = await running(store)
    dependent = await submitted_one(store, depends_on=(claim.lease.job_id,))
    await store.cancel(dependent)
    await submitted(store)

    assert (await store.remove_ended(Excess(jobs=9), (), 9)).jobs == 1
    job = await store.finish(claim.lease, SUCCESS)

    assert job.state is JobState.SUCCEEDED
