"""The bound on waiting jobs."""

from __future__ import annotations

import pytest

from daemon.clock import FixedClock
from daemon.errors import QueueFullError
from daemon.jobs.memory_store import MemoryJobStore
from daemon.server.pending_limit import PendingLimit


class CountedStore(MemoryJobStore):
    """Counts how often the queue is counted."""

    counts = 0

    async def count(self, state):
        self.counts += 1
        return await super().count(state)


async def test_queue_is_counted_only_when_places_run_out():
    """A submit costs a subtraction; the last count is enough while it lasts."""
    store = CountedStore(FixedClock())
    limit = PendingLimit(store, 10)
    for _ in range(10):
        await limit.take(1)
    assert store.counts == 1

    await limit.take(10)  # Nothing was stored, so a new count finds the queue empty.

    assert store.counts == 2


async def test_more_than_the_limit_is_refused():
    """And takes nothing."""
    limit = PendingLimit(CountedStore(FixedClock()), 10)
    with pytest.raises(QueueFullError):
        await limit.take(11)

    await limit.take(10)
