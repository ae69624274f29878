"""The bound on waiting jobs."""

from __future__ import annotations

import pytest

from daemon.clock import FixedClock
from daemon.errors import QueueFullError
from daemon.jobs.memory_store import MemoryJobStore
from daemon.jobs.models import NewJob
from daemon.jobs.states import JobState
from daemon.server.pending_limit import PendingLimit
from tests.contract.job_store_backends import new_job


def jobs(count: int) -> list[NewJob]:
    return [new_job() for _ in range(count)]


class CountedStore(MemoryJobStore):
    """Counts how often the queue is counted."""

    counts = 0
    lookups = 0

    async def count(self, state):
        self.counts += state is JobState.PENDING
        return await super().count(state)

    async def known_requests(self, request_ids):
        self.lookups += 1
        return await super().known_requests(request_ids)


async def test_queue_is_counted_only_when_places_run_out():
    """A submit costs a subtraction; the last count is enough while it lasts."""
    store = CountedStore(FixedClock())
    limit = PendingLimit(store, 10)
    for _ in range(10):
        await limit.take(jobs(1))
    assert store.counts == 1

    await limit.take(jobs(10))  # Nothing was stored, so a new count finds the queue empty.

    assert store.counts == 2


async def test_more_than_the_limit_is_refused():
    """And takes nothing."""
    limit = PendingLimit(CountedStore(FixedClock()), 10)
    with pytest.raises(QueueFullError):
        await limit.take(jobs(11))

    await limit.take(jobs(10))


async def test_request_ids_are_looked_up_only_when_places_run_out():
    """What is known needs no place, and what is named twice needs one."""
    store = CountedStore(FixedClock())
    limit = PendingLimit(store, 2)
    known = [new_job(), new_job(request_id="r")]
    for job in known:
        await limit.take([job])
    await store.submit(known)
    lookups = store.lookups

    await limit.take([new_job(request_id="r"), new_job(request_id="r")])
    with pytest.raises(QueueFullError):
        await limit.take([new_job(request_id="r"), new_job(request_id="s")])
    await PendingLimit(CountedStore(FixedClock()), 2).take(
        [new_job(request_id=name) for name in "ssst"]
    )

    assert (lookups, store.lookups) == (0, 2)


async def test_places_of_a_refused_submit_are_free_again():
    """A submit that stores nothing takes nobody's place."""
    store = CountedStore(FixedClock())
    limit = PendingLimit(store, 3)
    for _ in range(4):
        await limit.take(jobs(2))

    await limit.take(jobs(3))
