"""What every JobStore does with jobs that depend on others."""

from __future__ import annotations

import pytest

from agent_runner.errors import InvalidJobSpecError
from agent_runner.outcome import EndReason, Outcome
from daemon.clock import FixedClock
from daemon.errors import JobNotCancellableError
from daemon.jobs.models import NextMoments, QueueChange, Waits
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    INTERRUPTED,
    LEASE_S,
    OFFER,
    SUCCESS,
    claimed_ids,
    finished,
    new_job,
    submitted,
    submitted_one,
)

FAILURE = Outcome(end_reason=EndReason.EXITED, exit_code=1)


async def state(store: JobStore, job_id: str) -> JobState:
    return (await store.get(job_id)).state


class TestDependencies:
    async def test_blocked_until_all_have_succeeded(self, store: JobStore):
        """The job is queued by the last success, with its old place."""
        first, second = await submitted(store, 2)
        dependent = await submitted_one(store, depends_on=(first, second))
        later = await submitted(store, 1)
        changes: list[QueueChange] = []
        store.listen(changes.append)
        assert await state(store, dependent) is JobState.BLOCKED
        assert await store.waits_on(dependent) == Waits(dependencies=(first, second))
        await finished(store)
        assert await store.waits_on(dependent) == Waits(dependencies=(second,))
        assert changes == []

        await finished(store)

        (change,) = changes
        assert change.jobs == (await store.get(dependent),)
        assert (change.jobs[0].state, change.claimable) == (JobState.PENDING, True)
        assert await claimed_ids(store) == [dependent, *later]
        states = [event.state for event in await store.events(0, 99, [dependent])]
        assert states == [JobState.BLOCKED, JobState.PENDING, JobState.RUNNING]

    @pytest.mark.parametrize("how", ["failure", "cancel"])
    async def test_failure_cascades(self, store: JobStore, how: str):
        """What depends on it, near or far, fails at once and names it."""
        (root,) = await submitted(store, 1)
        child = await submitted_one(store, depends_on=(root,))
        grandchild = await submitted_one(store, depends_on=(child, root))
        unrelated = await submitted_one(store)
        changes: list[QueueChange] = []
        store.listen(changes.append)

        if how == "cancel":
            await store.cancel(root)
        else:
            await finished(store, FAILURE)

        jobs = [await store.get(job_id) for job_id in (child, grandchild)]
        for job in jobs:
            assert (job.state, job.end_reason) == (JobState.FAILED, EndReason.DEPENDENCY_FAILED)
            assert root in job.message or child in job.message
            assert job.end_us is not None
            assert (await store.events(0, 99, [job.id]))[-1].end_reason is job.end_reason
        assert [job.id for change in changes for job in change.jobs] == [child, grandchild]
        assert await claimed_ids(store) == [unrelated]

    async def test_long_chain(self, store: JobStore):
        """A chain of any length ends in one step."""
        (before,) = await submitted(store, 1)
        root = before
        for _ in range(300):
            before = await submitted_one(store, depends_on=(before,))

        await store.cancel(root)

        assert await state(store, before) is JobState.FAILED
        assert await store.count(JobState.BLOCKED) == 0

    async def test_interrupted_is_no_end(self, store: JobStore):
        """Only the end of the job decides, not that of an attempt."""
        (root,) = await submitted(store, 1)
        child = await submitted_one(store, depends_on=(root,))

        await finished(store, INTERRUPTED)
        assert await state(store, child) is JobState.BLOCKED
        await finished(store)
        assert await state(store, child) is JobState.PENDING

    async def test_decided_at_submit(self, store: JobStore):
        """Of what has ended, success blocks nothing and anything else fails the job."""
        good, bad, open_ = await submitted(store, 3)
        await finished(store)
        await store.cancel(bad)

        assert await state(store, await submitted_one(store, depends_on=(good,))) is (
            JobState.PENDING
        )
        failed = await store.get(await submitted_one(store, depends_on=(open_, bad)))
        assert (failed.state, failed.end_reason) == (
            JobState.FAILED,
            EndReason.DEPENDENCY_FAILED,
        )
        assert (failed.end_us, bad in failed.message) == (failed.create_us, True)
        (event,) = await store.events(0, 99, [failed.id])
        assert event.state is JobState.FAILED

    async def test_unknown_is_refused(self, store: JobStore):
        """Nothing of the call is accepted; a job cannot name itself."""
        new = new_job()
        with pytest.raises(InvalidJobSpecError, match=r"depends_on.0: no job has the id nobody"):
            await store.submit([new, new_job(depends_on=("nobody",))])
        itself = new_job()
        with pytest.raises(InvalidJobSpecError):
            await store.submit([new_job(depends_on=(itself.id,)), itself])

        assert (await store.list((), 9, "")).jobs == ()

    async def test_within_one_call(self, store: JobStore):
        """A job may depend on one before it in the same call."""
        first = new_job()
        await store.submit([first, new_job(depends_on=(first.id,))])

        assert await claimed_ids(store) == [first.id]

    async def test_cancel_of_a_blocked_one(self, store: JobStore):
        """It ends, and what it depended on does not revive it."""
        (root,) = await submitted(store, 1)
        child = await submitted_one(store, depends_on=(root,))

        job = await store.cancel(child)

        assert (job.state, job.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)
        await finished(store)
        assert await state(store, child) is JobState.CANCELLED
        with pytest.raises(JobNotCancellableError):
            await store.cancel(child)

    async def test_loss_cascades(self, store: JobStore, clock: FixedClock):
        """Also an end that nobody reported is one."""
        root = await submitted_one(store, max_attempts=1)
        child = await submitted_one(store, depends_on=(root,))
        await store.claim(OFFER, 1, LEASE_S)
        clock.advance(LEASE_S)

        lost = await store.expire_leases()

        assert [job.id for job in lost] == [root]
        assert await state(store, child) is JobState.FAILED

    async def test_released_into_a_wait(self, store: JobStore, clock: FixedClock):
        """After the dependencies comes the moment."""
        at_us = clock.now_us() + 1_000_000
        (root,) = await submitted(store, 1)
        child = await submitted_one(store, depends_on=(root,), not_before_us=at_us)
        changes: list[QueueChange] = []
        store.listen(changes.append)

        await finished(store, SUCCESS)

        assert changes[-1].timed
        assert (await store.get(child)).ready_us == at_us
        assert await store.wake_due(9) == NextMoments(wall_us=at_us)
        assert await claimed_ids(store) == []

    async def test_newest_retry(self, store: JobStore):
        """Of several repetitions the last one is told."""
        (old,) = await submitted(store, 1)
        assert await store.newest_retry(old) is None
        first, second = (new_job()._replace(retry_of=old) for _ in range(2))
        await store.submit([first])
        await store.submit([second])

        assert await store.newest_retry(old) == await store.get(second.id)
        assert (await store.get(second.id)).retry_of == old
