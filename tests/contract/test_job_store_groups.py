"""What every JobStore does with concurrency groups."""

from __future__ import annotations

import pytest

from agent_runner.job_spec import ConcurrencySpec, RetryPolicy
from agent_runner.outcome import EndReason, Outcome
from daemon.clock import FixedClock
from daemon.jobs.models import AgentIdentity, AgentOffer, QueueChange, Waits
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    INTERRUPTED,
    LEASE_S,
    OFFER,
    SUCCESS,
    claimed_ids,
    submitted,
    submitted_one,
)

ONE = ConcurrencySpec(group="deploy")
TWO = ConcurrencySpec(group="deploy", limit=2)
NEXT = AgentIdentity(name=OFFER.agent.name, incarnation="2")
WIDE = AgentOffer(agent=OFFER.agent, labels={"os": "linux"})


class TestGroups:
    @pytest.mark.parametrize("limit", [1, 2, 3])
    async def test_no_more_than_the_limit(self, store: JobStore, limit: int):
        """One claim and many claims give out the same number, in the order of the queue."""
        group = ConcurrencySpec(group="g", limit=limit)
        ids = [await submitted_one(store, concurrency=group) for _ in range(5)]

        claims = await store.claim(OFFER, 5, LEASE_S)
        assert [claim.lease.job_id for claim in claims] == ids[:limit]
        assert await claimed_ids(store) == []
        for at, claim in enumerate(claims):
            await store.finish(claim.lease, SUCCESS)
            assert await claimed_ids(store) == ids[limit + at : limit + at + 1]

    async def test_others_go_past(self, store: JobStore):
        """A group without room holds up nobody else, whatever its priority."""
        first, *_ = [await submitted_one(store, concurrency=ONE, priority=5) for _ in range(3)]
        others = await submitted(store, 2)
        elsewhere = await submitted_one(store, concurrency=ConcurrencySpec(group="test"))

        assert await claimed_ids(store) == [first, *others, elsewhere]

    async def test_priority_within(self, store: JobStore):
        """The best of the group is next, also if it came last."""
        await submitted_one(store, concurrency=ONE)
        best = await submitted_one(store, concurrency=ONE, priority=1)

        assert await claimed_ids(store) == [best]

    async def test_limit_is_of_the_job(self, store: JobStore):
        """Each job counts what runs against its own limit."""
        ids = [await submitted_one(store, concurrency=group) for group in (TWO, ONE, TWO, TWO, ONE)]

        assert await claimed_ids(store) == [ids[0], ids[2]]

    async def test_labels_within(self, store: JobStore):
        """A job that no agent-runner here can take does not stand in the way of its group."""
        await submitted_one(store, concurrency=ONE, labels={"os": "windows"})
        plain = await submitted_one(store, concurrency=ONE)
        linux = await submitted_one(store, concurrency=ONE, labels={"os": "linux"}, priority=1)

        assert await claimed_ids(store, WIDE) == [linux]
        await store.cancel(linux)
        assert await claimed_ids(store) == []  # it is still being stopped
        await store.end_predecessors(NEXT)
        assert await claimed_ids(store) == [plain]

    @pytest.mark.parametrize("how", ["success", "failure", "interrupted", "lost", "given back"])
    async def test_every_end_makes_room(self, store: JobStore, how: str):
        """However an attempt ends, a place is free; a job that is put back is the next of its group."""
        first, second = [await submitted_one(store, concurrency=ONE) for _ in range(2)]
        changes: list[QueueChange] = []
        store.listen(changes.append)
        (claim,) = await store.claim(OFFER, 2, LEASE_S)
        assert not changes
        if how == "lost":
            await store.end_predecessors(NEXT)
        elif how == "given back":
            await store.give_back([claim.lease], ())
        else:
            outcomes = {
                "success": SUCCESS,
                "failure": Outcome(end_reason=EndReason.EXITED, exit_code=1),
                "interrupted": INTERRUPTED,
            }
            await store.finish(claim.lease, outcomes[how])

        assert [change.claimable for change in changes] == [True]
        back = how in ("interrupted", "lost", "given back")
        assert await claimed_ids(store) == [first if back else second]

    async def test_waiting_member(self, store: JobStore, clock: FixedClock):
        """One that waits for a moment takes no place and holds up no other of its group."""
        waiting = await submitted_one(
            store, concurrency=ONE, priority=9, not_before_us=clock.now_us() + 1_000_000
        )
        other = await submitted_one(store, concurrency=ONE)
        assert await claimed_ids(store) == [other]
        clock.advance(1)
        await store.wake_due(10)
        assert await claimed_ids(store) == []

        await store.end_predecessors(NEXT)

        assert await claimed_ids(store) == [waiting]

    async def test_retry_makes_room(self, store: JobStore):
        """During its backoff a job does not count."""
        retries = RetryPolicy(max=1, backoff_s=5.0)
        await submitted_one(store, concurrency=ONE, retries=retries)
        other = await submitted_one(store, concurrency=ONE)
        (claim,) = await store.claim(OFFER, 1, LEASE_S)

        await store.finish(claim.lease, Outcome(end_reason=EndReason.EXITED, exit_code=1))

        assert await claimed_ids(store) == [other]


class TestWaits:
    async def test_queue(self, store: JobStore, clock: FixedClock):
        """What a queued job waits on: jobs before it, its group, its moment."""
        ids = await submitted(store, 2)
        grouped = [await submitted_one(store, concurrency=ONE) for _ in range(2)]
        at_us = clock.now_us() + 1
        timed = await submitted_one(store, not_before_us=at_us, priority=1)

        assert await store.waits_on(ids[1]) == Waits(ahead=1)
        assert await store.waits_on(timed) == Waits(ready_us=at_us)
        assert await store.waits_on(grouped[1]) == Waits(ahead=3)
        await claimed_ids(store)
        assert await store.waits_on(grouped[1]) == Waits(
            group="deploy", group_holders=(grouped[0],)
        )
        assert await store.waits_on(ids[0]) == Waits()
        assert (await store.get(grouped[1])).state is JobState.PENDING
