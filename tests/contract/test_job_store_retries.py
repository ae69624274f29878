"""What every JobStore does with an attempt that failed by itself, and with jobs that wait for a moment."""

from __future__ import annotations

import pytest

from agent_runner.job_spec import RetryPolicy
from agent_runner.outcome import EndReason, Outcome
from daemon.clock import FixedClock
from daemon.jobs.models import AgentIdentity, NextMoments, QueueChange
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    INTERRUPTED,
    LEASE_S,
    OFFER,
    claimed_ids,
    finished,
    submitted,
    submitted_one,
)

NEXT = AgentIdentity(name=OFFER.agent.name, incarnation="2")
FAILURE = Outcome(end_reason=EndReason.EXITED, exit_code=1, message="no")
SECOND_US = 1_000_000


def failure(code: int | None = None, reason: EndReason = EndReason.EXITED) -> Outcome:
    return Outcome(end_reason=reason, exit_code=code)


class TestRetries:
    async def test_final_after_the_last_one(self, store: JobStore):
        """Each failure puts the job back until none is left; every attempt is recorded."""
        job_id = await submitted_one(store, retries=RetryPolicy(max=2))
        for failures in (1, 2):
            job = await finished(store, FAILURE)
            assert (job.state, job.failures, job.end_reason) == (JobState.PENDING, failures, None)

        job = await finished(store, FAILURE)

        assert (job.state, job.exit_code, job.message) == (JobState.FAILED, 1, "no")
        attempts = await store.attempts(job_id)
        assert [(one.number, one.state, one.exit_code) for one in attempts] == [
            (number, JobState.FAILED, 1) for number in (1, 2, 3)
        ]
        assert await claimed_ids(store) == []

    async def test_success_ends_it(self, store: JobStore):
        """A later success is the job's end."""
        await submitted_one(store, retries=RetryPolicy(max=2))
        await finished(store, FAILURE)

        job = await finished(store)

        assert (job.state, job.attempt, job.exit_code) == (JobState.SUCCEEDED, 2, 0)

    @pytest.mark.parametrize(
        ("policy", "outcome", "again"),
        [
            (RetryPolicy(max=1), failure(1), True),
            (RetryPolicy(max=1), failure(reason=EndReason.TIMED_OUT), True),
            (RetryPolicy(max=1), failure(reason=EndReason.SECRET_MISSING), False),
            (RetryPolicy(max=1), failure(reason=EndReason.SANDBOX_FAILED), False),
            (RetryPolicy(max=0), failure(1), False),
            (RetryPolicy(max=1, exit_codes=(75,)), failure(75), True),
            (RetryPolicy(max=1, exit_codes=(75,)), failure(1), False),
            (RetryPolicy(max=1, exit_codes=(137,)), failure(137, EndReason.SIGNALED), True),
            (RetryPolicy(max=1, exit_codes=(143,)), failure(143, EndReason.TIMED_OUT), False),
            (RetryPolicy(max=1, end_reasons=(EndReason.TIMED_OUT,)), failure(1), False),
            (
                RetryPolicy(max=1, exit_codes=(75,), end_reasons=(EndReason.SOURCE_FAILED,)),
                failure(reason=EndReason.SOURCE_FAILED),
                True,
            ),
            (RetryPolicy(max=1), failure(reason=EndReason.CANCELLED), False),
        ],
    )
    async def test_only_what_was_asked_for(
        self, store: JobStore, policy: RetryPolicy, outcome: Outcome, again: bool
    ):
        """Exit codes and reasons select; without any, every failure of the command itself."""
        await submitted_one(store, retries=policy)

        job = await finished(store, outcome)

        assert (job.state is JobState.PENDING) == again

    async def test_repeated_report(self, store: JobStore):
        """A report that comes twice is one failure."""
        await submitted_one(store, retries=RetryPolicy(max=2))
        (claim,) = await store.claim(OFFER, 1, LEASE_S)

        first = await store.finish(claim.lease, FAILURE)

        assert await store.finish(claim.lease, FAILURE) == first

    async def test_not_while_cancelling(self, store: JobStore):
        """A job that was cancelled is not tried again."""
        job_id = await submitted_one(store, retries=RetryPolicy(max=2))
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        await store.cancel(job_id)

        assert (await store.finish(claim.lease, FAILURE)).state is JobState.FAILED

    async def test_keeps_its_place(self, store: JobStore):
        """A retry comes before what was submitted after the job."""
        job_id = await submitted_one(store, retries=RetryPolicy(max=1))
        later = await submitted(store, 2)
        await finished(store, FAILURE)

        assert await claimed_ids(store) == [job_id, *later]

    async def test_max_attempts_bounds_both(self, store: JobStore):
        """Losses and failures count together; what was interrupted does not."""
        await submitted_one(store, retries=RetryPolicy(max=9), max_attempts=3)
        for _ in range(5):
            assert (await finished(store, INTERRUPTED)).state is JobState.PENDING
        await finished(store, FAILURE)
        await store.claim(OFFER, 1, LEASE_S)
        (job,) = await store.end_predecessors(NEXT)
        assert (job.state, job.failures, job.losses) == (JobState.PENDING, 1, 1)

        job = await finished(store, FAILURE)

        assert (job.state, job.attempt) == (JobState.FAILED, 8)

    async def test_max_attempts_bounds_losses(self, store: JobStore):
        """The last of the attempts is lost for good."""
        await submitted_one(store, max_attempts=1)
        await store.claim(OFFER, 1, LEASE_S)

        (job,) = await store.end_predecessors(NEXT)

        assert (job.state, job.end_reason) == (JobState.FAILED, EndReason.LOST)


class TestMoments:
    async def test_backoff_doubles(self, store: JobStore, clock: FixedClock):
        """Each wait is twice the one before, at most an hour."""
        await submitted_one(store, retries=RetryPolicy(max=9, backoff_s=1000.0))
        waits = []
        for _ in range(4):
            job = await finished(store, FAILURE)
            assert job.ready_us is not None
            waits.append((job.ready_us - clock.now_us()) / SECOND_US)
            clock.advance(waits[-1])
            await store.wake_due(10)

        assert waits == [1000, 2000, 3600, 3600]

    async def test_never_before_its_moment(self, store: JobStore, clock: FixedClock):
        """A waiting job is not claimed; once its moment has come it has its old place."""
        at_us = clock.now_us() + 10 * SECOND_US
        early = await submitted_one(store, not_before_us=at_us)
        others = await submitted(store, 1)
        assert (await store.get(early)).ready_us == at_us
        assert await store.wake_due(10) == NextMoments(wall_us=at_us)
        assert await claimed_ids(store) == others
        later = await submitted(store, 1)
        clock.advance(9.999)
        assert await store.wake_due(10) == NextMoments(wall_us=at_us)
        assert await claimed_ids(store, limit=0) == []
        clock.advance(0.001)

        assert await store.wake_due(10) == NextMoments()

        assert (await store.get(early)).ready_us is None
        assert await claimed_ids(store) == [early, *later]

    async def test_past_moment_is_none(self, store: JobStore, clock: FixedClock):
        """A moment that is over delays nothing."""
        job_id = await submitted_one(store, not_before_us=clock.now_us())

        assert await claimed_ids(store) == [job_id]

    async def test_cancel_while_waiting(self, store: JobStore, clock: FixedClock):
        """A cancel ends the wait, before the first attempt and between two."""
        waiting = await submitted_one(store, not_before_us=clock.now_us() + SECOND_US)
        failed = await submitted_one(store, retries=RetryPolicy(max=1, backoff_s=5.0))
        await finished(store, FAILURE)

        for job_id in (waiting, failed):
            job = await store.cancel(job_id)
            assert (job.state, job.ready_us) == (JobState.CANCELLED, None)

        assert await store.wake_due(10) == NextMoments()
        clock.advance(60)
        await store.wake_due(10)
        assert await claimed_ids(store) == []

    async def test_a_crowd_is_woken_in_parts(self, store: JobStore, clock: FixedClock):
        """No more than the limit at once; the moments tell that there are more."""
        at_us = clock.now_us() + SECOND_US
        for _ in range(5):
            await submitted_one(store, not_before_us=at_us)
        clock.advance(1)

        assert await store.wake_due(3) == NextMoments(wall_us=at_us)
        assert len(await claimed_ids(store)) == 3
        assert await store.wake_due(3) == NextMoments()
        assert len(await claimed_ids(store)) == 2

    async def test_backoff_after_a_clock_jump(self, store: JobStore, clock: FixedClock):
        """A server that starts after the clock was set back waits at most one whole backoff more."""
        await submitted_one(store, retries=RetryPolicy(max=1, backoff_s=60.0))
        await finished(store, FAILURE)
        clock.time_us -= 86_400 * SECOND_US

        await store.cap_backoffs()

        expected = NextMoments(steady_us=clock.steady_us() + 60 * SECOND_US)
        assert await store.wake_due(10) == expected
        clock.advance(30)
        await store.cap_backoffs()
        assert await store.wake_due(10) == expected

    async def test_told_to_the_listener(self, store: JobStore, clock: FixedClock):
        """Who sets the timer hears of each new wait, and of what it woke."""
        changes: list[QueueChange] = []
        store.listen(changes.append)
        await submitted(store, 2)
        await finished(store)
        assert changes == []

        await submitted_one(store, not_before_us=clock.now_us() + SECOND_US)
        assert changes.pop().timed
        await submitted_one(store, priority=1, retries=RetryPolicy(max=1, backoff_s=1.0))
        await finished(store, FAILURE)
        assert changes.pop().timed
        clock.advance(2)
        await store.wake_due(10)
        assert changes[-1].claimable
