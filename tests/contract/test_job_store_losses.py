"""What every JobStore does with the jobs of agent-runners that died."""

from __future__ import annotations

import pytest

from agent_runner.outcome import EndReason, LogSummary
from daemon.clock import FixedClock
from daemon.jobs.lifecycle import DROPPED_MESSAGE, NOT_RECEIVED_MESSAGE
from daemon.jobs.models import MAX_LOSSES, AgentIdentity, AgentOffer
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    OTHER_OFFER,
    SUCCESS,
    claimed_ids,
    running,
    submitted,
)

NEXT = AgentIdentity(name=OFFER.agent.name, incarnation="2")


class TestLoss:
    async def test_successor_ends_predecessors(self, store: JobStore):
        """A new start takes the leases of all earlier ones, of no other agent-runner and not its own."""
        ids = await submitted(store, 4)
        offers = [OFFER, AgentOffer(agent=NEXT), OTHER_OFFER]
        third = AgentIdentity(name=OFFER.agent.name, incarnation="3")
        offers.append(AgentOffer(agent=third))
        claims = [(await store.claim(offer, 1, LEASE_S))[0] for offer in offers]

        lost = await store.end_predecessors(third)

        assert [(job.id, job.state, job.losses) for job in lost] == [
            (ids[0], JobState.PENDING, 1),
            (ids[1], JobState.PENDING, 1),
        ]
        assert lost == [await store.get(job.id) for job in lost]
        (attempt,) = await store.attempts(ids[0])
        assert (attempt.state, attempt.end_reason) == (JobState.FAILED, EndReason.LOST)
        assert attempt.log == LogSummary(truncated="agent_died")
        await store.check_lease(claims[2].lease)
        await store.check_lease(claims[3].lease)
        assert await store.end_predecessors(third) == []

    async def test_back_to_the_front(self, store: JobStore):
        """A lost job is the next of its priority."""
        ids = await submitted(store, 3)
        await store.claim(OFFER, 1, LEASE_S)

        await store.end_predecessors(NEXT)

        assert await claimed_ids(store) == ids

    async def test_attempts_run_out(self, store: JobStore, clock: FixedClock):
        """After the last allowed loss the job is FAILED and LOST."""
        (job_id,) = await submitted(store)
        for losses in range(1, MAX_LOSSES + 1):
            await store.claim(OFFER, 1, LEASE_S)
            clock.advance(LEASE_S)
            (job,) = await store.expire_leases()
            assert (job.state, job.losses) == (JobState.PENDING, losses)
        await store.claim(OFFER, 1, LEASE_S)

        (job,) = await store.end_predecessors(NEXT)

        assert (job.id, job.state, job.end_reason) == (job_id, JobState.FAILED, EndReason.LOST)
        assert job.end_us == clock.now_us()
        assert len(await store.attempts(job_id)) == MAX_LOSSES + 1
        assert await store.claim(OFFER, 1, LEASE_S) == []

    async def test_lost_while_cancelling(self, store: JobStore, clock: FixedClock):
        """A cancelled job whose agent-runner dies is CANCELLED, not run again."""
        first = await running(store)
        second = await running(store, OTHER_OFFER)
        await store.cancel(first.lease.job_id)
        await store.cancel(second.lease.job_id)
        (by_successor,) = await store.end_predecessors(NEXT)
        clock.advance(LEASE_S)
        (by_time,) = await store.expire_leases()

        assert (by_successor.id, by_time.id) == (first.lease.job_id, second.lease.job_id)
        for job in (by_successor, by_time):
            assert (job.state, job.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)

    async def test_log_is_described_later(self, store: JobStore, clock: FixedClock):
        """What nobody reported is recorded once, when somebody has read the log; nothing else can be changed so."""
        lost, ended, live = [await running(store) for _ in range(3)]
        await store.finish(ended.lease, SUCCESS)
        await store.renew(OFFER.agent, [live.lease], LEASE_S * 2)
        clock.advance(LEASE_S)
        await store.expire_leases()
        before = await store.last_event_id()

        for claim in (lost, ended, live):
            await store.describe_log(claim.lease.job_id, 1, 77, "hash")
        await store.describe_log(lost.lease.job_id, 1, 78, "other")
        await store.describe_log("nobody", 1, 1, "hash")
        await store.describe_log(lost.lease.job_id, 2, 1, "hash")

        logs = [(await store.attempts(c.lease.job_id))[0].log for c in (lost, ended, live)]
        assert logs == [
            LogSummary(length=77, sha256="hash", truncated="agent_died"),
            SUCCESS.log,
            LogSummary(),
        ]
        assert await store.last_event_id() == before

    async def test_only_overdue_leases_expire(self, store: JobStore, clock: FixedClock):
        """A lease ends when its time is over, not before, and once."""
        first = await running(store)
        clock.advance(10)
        await running(store)
        clock.advance(LEASE_S - 10)

        assert [job.id for job in await store.expire_leases()] == [first.lease.job_id]
        assert await store.expire_leases() == []

    async def test_full_term_after_a_start(self, store: JobStore, clock: FixedClock):
        """Extending gives every live lease a full term, overdue ones too, and wakes no ended one."""
        ended = await running(store)
        await store.finish(ended.lease, SUCCESS)
        claim = await running(store)
        clock.advance(LEASE_S * 3)

        await store.extend_all_leases(LEASE_S)

        assert await store.expire_leases() == []
        await store.check_lease(claim.lease)
        clock.advance(LEASE_S)
        assert [job.id for job in await store.expire_leases()] == [claim.lease.job_id]


class TestGiveBack:
    async def test_never_arrived(self, store: JobStore, clock: FixedClock):
        """An assignment that its agent-runner never named costs nothing and is the next of its priority."""
        ids = await submitted(store, 2)
        claims = await store.claim(OFFER, 1, LEASE_S)
        clock.advance(1)

        (job,) = await store.give_back([claims[0].lease], ())

        assert job == await store.get(ids[0])
        assert (job.state, job.losses, job.end_us) == (JobState.PENDING, 0, None)
        (attempt,) = await store.attempts(job.id)
        assert (attempt.state, attempt.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)
        assert (attempt.message, attempt.end_us) == (NOT_RECEIVED_MESSAGE, clock.now_us())
        assert attempt.log == LogSummary()
        assert await claimed_ids(store) == ids

    @pytest.mark.parametrize("how", ["renewed", "written"])
    async def test_arrived(self, store: JobStore, how: str):
        """An attempt that was named once, or has written to its log, is a loss and counts."""
        claim = await running(store)
        if how == "renewed":
            await store.renew(OFFER.agent, [claim.lease], LEASE_S)

        (job,) = await store.give_back([claim.lease], [claim.lease] if how == "written" else [])

        assert (job.state, job.losses) == (JobState.PENDING, 1)
        (attempt,) = await store.attempts(job.id)
        assert (attempt.state, attempt.end_reason) == (JobState.FAILED, EndReason.LOST)
        assert (attempt.message, attempt.log.truncated) == (DROPPED_MESSAGE, "agent_died")

    async def test_only_the_holder_confirms(self, store: JobStore):
        """A renewal by another start says nothing about this one."""
        claim = await running(store)
        await store.renew(NEXT, [claim.lease], LEASE_S)

        (job,) = await store.give_back([claim.lease], ())

        assert job.losses == 0

    async def test_losses_run_out(self, store: JobStore):
        """A job that its agent-runners drop again and again ends."""
        await submitted(store)
        states = []
        for _ in range(MAX_LOSSES + 1):
            (claim,) = await store.claim(OFFER, 1, LEASE_S)
            (job,) = await store.give_back([claim.lease], [claim.lease])
            states.append((job.state, job.end_reason))

        assert states[:-1] == [(JobState.PENDING, None)] * MAX_LOSSES
        assert states[-1] == (JobState.FAILED, EndReason.LOST)

    async def test_while_cancelling(self, store: JobStore):
        """A cancelled job does not run again."""
        claim = await running(store)
        await store.cancel(claim.lease.job_id)

        (job,) = await store.give_back([claim.lease], ())

        assert (job.state, job.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)

    async def test_what_is_not_held_is_left_out(self, store: JobStore):
        """Ended meanwhile is as good; nobody else's attempt is touched."""
        first, second = await running(store), await running(store)
        await store.finish(first.lease, SUCCESS)
        forged = second.lease._replace(lease_token="guess")
        before = await store.last_event_id()

        assert await store.give_back([first.lease, forged, first.lease], [forged]) == []

        assert await store.last_event_id() == before
        await store.check_lease(second.lease)
