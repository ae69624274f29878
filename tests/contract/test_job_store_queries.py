"""What every JobStore does: cancels, lists, counts and tells events."""

from __future__ import annotations

import pytest

from agent_runner.outcome import EndReason, Outcome
from daemon.clock import FixedClock
from daemon.errors import (
    JobNotCancellableError,
    JobNotFoundError,
    UsageError,
)
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    SUCCESS,
    running,
    submitted,
)


class TestCancel:
    async def test_pending(self, store: JobStore, clock: FixedClock):
        """A queued job ends at once and is never claimed."""
        (job_id,) = await submitted(store)
        clock.advance(2)

        job = await store.cancel(job_id)

        assert (job.state, job.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)
        assert job.end_us == clock.now_us()
        assert job == await store.get(job_id)
        assert await store.claim(OFFER, 1, LEASE_S) == []

    async def test_running(self, store: JobStore):
        """A running job is marked, once, and keeps its lease."""
        claim = await running(store)

        job = await store.cancel(claim.lease.job_id)
        events = await store.last_event_id()

        assert job.state is JobState.CANCELLING
        assert await store.cancel(claim.lease.job_id) == job
        assert await store.last_event_id() == events
        await store.check_lease(claim.lease)

    @pytest.mark.parametrize("exit_code", [0, 1])
    async def test_ended(self, store: JobStore, exit_code: int):
        """A job that has ended cannot be cancelled."""
        claim = await running(store)
        outcome = Outcome(end_reason=EndReason.EXITED, exit_code=exit_code)
        ended = await store.finish(claim.lease, outcome)

        with pytest.raises(JobNotCancellableError, match=ended.id):
            await store.cancel(ended.id)

        assert await store.get(ended.id) == ended

    async def test_cancelled(self, store: JobStore):
        """Neither can a cancelled one."""
        (job_id,) = await submitted(store)
        await store.cancel(job_id)

        with pytest.raises(JobNotCancellableError):
            await store.cancel(job_id)

    async def test_unknown(self, store: JobStore):
        """An unknown id is named."""
        with pytest.raises(JobNotFoundError, match="nobody"):
            await store.cancel("nobody")


class TestQueries:
    async def test_get_unknown(self, store: JobStore):
        """An unknown id is named."""
        with pytest.raises(JobNotFoundError, match="nobody"):
            await store.get("nobody")

    async def test_attempts_of_none(self, store: JobStore):
        """A job without attempts and an unknown one have none."""
        (job_id,) = await submitted(store)

        assert await store.attempts(job_id) == []
        assert await store.attempts("nobody") == []

    async def test_pages_while_inserting(self, store: JobStore):
        """Pages hold each job once, newest first, whatever is submitted between them."""
        ids = await submitted(store, 7)
        seen: list[str] = []
        token = ""
        while True:
            page = await store.list((), 3, token)
            seen += [job.id for job in page.jobs]
            await submitted(store, 2)
            if not (token := page.next_page_token):
                break

        assert seen == ids[::-1]

    async def test_since_a_time_although_the_clock_was_set_back(
        self, store: JobStore, clock: FixedClock
    ):
        """Every job with that time or a later one is listed, in the order of submits, whatever stands between."""
        early = await submitted(store, 2)
        clock.advance(10)
        late = await submitted(store, 3)
        since_us = clock.now_us()
        clock.advance(-8)
        await submitted(store, 8)
        clock.advance(8)
        late += await submitted(store, 2)

        first = await store.list((), 3, "", since_us=since_us)
        second = await store.list((), 3, first.next_page_token, since_us=since_us)

        assert [job.id for job in first.jobs + second.jobs] == late[::-1]
        assert second.next_page_token == ""
        everything = await store.list((), 99, "", since_us=since_us - 10_000_000)
        assert {*early} < {job.id for job in everything.jobs}
        pending = await store.list([JobState.PENDING], 99, "", since_us=since_us)
        assert [job.id for job in pending.jobs] == late[::-1]

    async def test_since_a_time_over_many_jobs(self, store: JobStore, clock: FixedClock):
        """More than are looked through in one go."""
        wanted = [*await submitted(store, 2)]
        since_us = clock.now_us()
        clock.advance(-5)
        for _ in range(6):
            await submitted(store, 1000)

        page = await store.list((), 1, "", since_us=since_us)
        assert [job.id for job in page.jobs] == wanted[1:]
        page = await store.list((), 1, page.next_page_token, since_us=since_us)
        assert [job.id for job in page.jobs] == wanted[:1]
        assert page.next_page_token == ""

    async def test_no_page_after_the_last(self, store: JobStore):
        """A page that ends with the oldest job says so, even when it is full."""
        assert await store.list((), 3, "") == await store.list([JobState.FAILED], 3, "")
        await submitted(store, 3)

        page = await store.list((), 3, "")

        assert len(page.jobs) == 3
        assert page.next_page_token == ""

    async def test_filter_by_states(self, store: JobStore):
        """Only jobs of the wanted states are listed, in one order."""
        ids = await submitted(store, 6)
        await store.claim(OFFER, 2, LEASE_S)
        await store.cancel(ids[4])
        wanted = {JobState.RUNNING, JobState.CANCELLED}

        first = await store.list(wanted, 2, "")
        second = await store.list(wanted, 2, first.next_page_token)

        assert [job.id for job in first.jobs + second.jobs] == [ids[4], ids[1], ids[0]]
        assert second.next_page_token == ""

    @pytest.mark.parametrize(
        "token",
        ["x", "NA", "LTE=", "MA==", "NA== ", "é", "ICA0", "NF80", "OTk5OTk5OTk5OTk5OTk5OTk5OTk="],
    )
    async def test_strange_page_token(self, store: JobStore, token: str):
        """A token that no page gave is refused."""
        with pytest.raises(UsageError, match="page token"):
            await store.list((), 3, token)

    async def test_page_size(self, store: JobStore):
        """A page without room is refused."""
        with pytest.raises(UsageError, match="page size"):
            await store.list((), 0, "")

    async def test_count(self, store: JobStore):
        """Counts follow the states."""
        ids = await submitted(store, 4)
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        await store.finish(claim.lease, SUCCESS)
        await store.cancel(ids[1])

        counts = {state: await store.count(state) for state in JobState}

        expected = {JobState.PENDING: 2, JobState.SUCCEEDED: 1, JobState.CANCELLED: 1}
        assert {state: count for state, count in counts.items() if count} == expected

    async def test_events_tell_each_change(self, store: JobStore, clock: FixedClock):
        """Every change of a state is one event, numbered without gaps."""
        claim = await running(store)
        clock.advance(5)
        await store.finish(claim.lease, SUCCESS)

        events = await store.events(0, 9, ())

        assert [(e.id, e.state, e.attempt, e.end_reason, e.exit_code) for e in events] == [
            (1, JobState.PENDING, 0, None, None),
            (2, JobState.RUNNING, 1, None, None),
            (3, JobState.SUCCEEDED, 1, EndReason.EXITED, 0),
        ]
        assert {event.job_id for event in events} == {claim.lease.job_id}
        assert events[2].time_us - events[1].time_us == 5_000_000
        assert await store.last_event_id() == 3

    async def test_events_resume_and_filter(self, store: JobStore):
        """Events continue after an id, in order, for all jobs or some."""
        ids = await submitted(store, 4)
        await store.cancel(ids[0])
        await store.cancel(ids[2])

        assert [event.id for event in await store.events(2, 3, ())] == [3, 4, 5]
        assert await store.events(6, 3, ()) == []
        some = await store.events(1, 9, [ids[2], ids[0], "nobody"])
        assert [(event.id, event.job_id) for event in some] == [
            (3, ids[2]),
            (5, ids[0]),
            (6, ids[2]),
        ]
        assert [event.id for event in await store.events(0, 2, {ids[0], ids[2]})] == [1, 3]

    async def test_no_events(self, store: JobStore):
        """A new store has none."""
        assert await store.last_event_id() == 0
        assert await store.events(0, 9, ()) == []
