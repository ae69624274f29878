"""What every JobStore does with leases: renew, check, finish, put back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent_runner.outcome import EndReason, LogSummary, Outcome, SandboxRecord
from daemon.clock import FixedClock
from daemon.errors import LeaseLostError
from daemon.jobs.lifecycle import INTERRUPTED_MESSAGE
from daemon.jobs.models import MAX_LOSSES, AgentIdentity, AgentOffer, LeaseRef
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    INTERRUPTED,
    LEASE_S,
    OFFER,
    OTHER_OFFER,
    SUCCESS,
    claimed_ids,
    running,
    submitted,
)

NEXT = AgentIdentity(name=OFFER.agent.name, incarnation="2")


def not_held(lease: LeaseRef) -> list[LeaseRef]:
    """Return leases that differ from a held one in each part."""
    return [
        lease._replace(job_id="nobody"),
        lease._replace(attempt=0),
        lease._replace(attempt=lease.attempt + 1),
        lease._replace(lease_token="guess"),
    ]


class TestRenew:
    async def test_extends(self, store: JobStore, clock: FixedClock):
        """A renewed lease lives for a full term from the renewal, whose time is kept."""
        claim = await running(store)
        assert (await store.attempts(claim.lease.job_id))[0].renew_us is None
        clock.advance(20)

        renewal = await store.renew(OFFER.agent, [claim.lease], LEASE_S)
        assert (await store.attempts(claim.lease.job_id))[0].renew_us == clock.now_us()
        clock.advance(LEASE_S - 0.001)

        assert (renewal.lost, renewal.cancelling) == ((), ())
        assert await store.expire_leases() == []
        clock.advance(0.001)
        assert len(await store.expire_leases()) == 1

    async def test_nothing(self, store: JobStore):
        """An idle agent-runner renews nothing."""
        renewal = await store.renew(OFFER.agent, [], LEASE_S)

        assert (renewal.lost, renewal.cancelling) == ((), ())

    async def test_tells_what_is_lost(self, store: JobStore):
        """What is not held is lost; the rest of the same call is renewed."""
        claim = await running(store)
        strange = not_held(claim.lease)

        renewal = await store.renew(OFFER.agent, [*strange, claim.lease], LEASE_S)

        assert renewal.lost == tuple(strange)

    async def test_only_by_its_holder(self, store: JobStore, clock: FixedClock):
        """Another agent-runner, or another start of the same one, renews nothing."""
        claim = await running(store)
        clock.advance(20)
        for agent in (OTHER_OFFER.agent, NEXT):
            assert (await store.renew(agent, [claim.lease], LEASE_S)).lost == (claim.lease,)
        clock.advance(10)

        assert len(await store.expire_leases()) == 1

    async def test_tells_what_is_cancelling(self, store: JobStore):
        """The lease of a cancelled job is held until the end is reported."""
        claim = await running(store)
        await store.cancel(claim.lease.job_id)

        renewal = await store.renew(OFFER.agent, [claim.lease], LEASE_S)

        assert (renewal.lost, renewal.cancelling) == ((), (claim.lease,))

    async def test_after_the_end(self, store: JobStore):
        """An ended attempt is lost."""
        claim = await running(store)
        await store.finish(claim.lease, SUCCESS)

        assert (await store.renew(OFFER.agent, [claim.lease], LEASE_S)).lost == (claim.lease,)


class TestFinish:
    @pytest.mark.parametrize(
        ("end_reason", "exit_code", "state"),
        [
            (EndReason.EXITED, 0, JobState.SUCCEEDED),
            (EndReason.EXITED, 3, JobState.FAILED),
            (EndReason.SIGNALED, None, JobState.FAILED),
            (EndReason.TIMED_OUT, 0, JobState.FAILED),
            (EndReason.CANCELLED, None, JobState.CANCELLED),
        ],
    )
    async def test_records_the_end(
        self,
        store: JobStore,
        clock: FixedClock,
        end_reason: EndReason,
        exit_code: int | None,
        state: JobState,
    ):
        """Job and attempt carry what the agent-runner reported."""
        claim = await running(store)
        clock.advance(3)
        outcome = Outcome(
            end_reason=end_reason,
            exit_code=exit_code,
            message="wörds",
            sandbox=SandboxRecord(kind="filesystem", tier="bwrap", walls_not_held=("pids", "net")),
            log=LogSummary(length=1 << 40, sha256="ab", truncated="size_limit"),
        )

        job = await store.finish(claim.lease, outcome)

        (attempt,) = await store.attempts(job.id)
        for end in (job, attempt):
            assert (end.state, end.end_reason, end.exit_code) == (state, end_reason, exit_code)
            assert (end.message, end.sandbox, end.end_us) == (
                outcome.message,
                outcome.sandbox,
                clock.now_us(),
            )
        assert attempt.log == outcome.log
        assert job == await store.get(job.id)

    async def test_repeat_is_harmless(self, store: JobStore, clock: FixedClock):
        """The same report again changes nothing and returns the same job."""
        claim = await running(store)
        job = await store.finish(claim.lease, SUCCESS)
        clock.advance(9)

        assert await store.finish(claim.lease, SUCCESS) == job
        assert await store.last_event_id() == 3

    async def test_at_once_and_twice(self, store: JobStore):
        """Two equal reports in flight end the job once."""
        claim = await running(store)

        first, second = await asyncio.gather(
            store.finish(claim.lease, SUCCESS), store.finish(claim.lease, SUCCESS)
        )

        assert first == second
        assert await store.last_event_id() == 3

    @pytest.mark.parametrize(
        "other",
        [
            replace(SUCCESS, exit_code=1),
            replace(SUCCESS, exit_code=None),
            replace(SUCCESS, end_reason=EndReason.CANCELLED),
            replace(SUCCESS, log=LogSummary(length=3, sha256="other")),
        ],
    )
    async def test_another_end_is_refused(self, store: JobStore, other: Outcome):
        """A second report that differs does not move a finished job."""
        claim = await running(store)
        job = await store.finish(claim.lease, SUCCESS)

        with pytest.raises(LeaseLostError, match=job.id):
            await store.finish(claim.lease, other)

        assert await store.get(job.id) == job

    async def test_needs_the_lease(self, store: JobStore):
        """Nobody else ends the attempt."""
        claim = await running(store)
        for lease in not_held(claim.lease):
            with pytest.raises(LeaseLostError):
                await store.finish(lease, SUCCESS)

        assert (await store.get(claim.lease.job_id)).state is JobState.RUNNING

    async def test_never_shows_the_token(self, store: JobStore):
        """The text of the error is safe to log."""
        claim = await running(store)
        lease = claim.lease._replace(attempt=2)

        with pytest.raises(LeaseLostError) as caught:
            await store.finish(lease, SUCCESS)

        assert lease.lease_token not in str(caught.value)

    @pytest.mark.parametrize("end_reason", [EndReason.EXITED, EndReason.LOST])
    async def test_after_the_lease_was_lost(
        self, store: JobStore, clock: FixedClock, end_reason: EndReason
    ):
        """A late report is refused, before and after the next attempt began, even if it says LOST."""
        late = (await running(store)).lease
        outcome = Outcome(end_reason=end_reason)
        clock.advance(LEASE_S)
        await store.expire_leases()
        with pytest.raises(LeaseLostError):
            await store.finish(late, outcome)
        (claim,) = await store.claim(OTHER_OFFER, 1, LEASE_S)

        with pytest.raises(LeaseLostError):
            await store.finish(late, outcome)

        assert (await store.finish(claim.lease, SUCCESS)).state is JobState.SUCCEEDED

    async def test_overdue_but_not_reaped(self, store: JobStore, clock: FixedClock):
        """A report that comes before the reaper counts: nobody else has the job."""
        claim = await running(store)
        clock.advance(LEASE_S * 2)

        assert (await store.finish(claim.lease, SUCCESS)).state is JobState.SUCCEEDED
        assert await store.expire_leases() == []

    async def test_cancelled_while_running(self, store: JobStore):
        """A cancelled job takes the end that was reported."""
        first = await running(store)
        await store.cancel(first.lease.job_id)
        outcome = Outcome(end_reason=EndReason.CANCELLED)
        assert (await store.finish(first.lease, outcome)).state is JobState.CANCELLED

        second = await running(store)
        await store.cancel(second.lease.job_id)
        assert (await store.finish(second.lease, SUCCESS)).state is JobState.SUCCEEDED

    async def test_interrupted_goes_back_to_the_front(self, store: JobStore):
        """An interrupted attempt costs nothing and its job is the next of its priority."""
        ids = await submitted(store, 3)
        first, _ = await store.claim(OFFER, 2, LEASE_S)

        job = await store.finish(first.lease, INTERRUPTED)

        assert (job.state, job.losses, job.attempt, job.end_us) == (JobState.PENDING, 0, 1, None)
        (attempt,) = await store.attempts(job.id)
        assert (attempt.state, attempt.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)
        assert await claimed_ids(store) == [ids[0], ids[2]]

    async def test_interrupted_any_number_of_times(self, store: JobStore):
        """Interruptions never use up a job."""
        await submitted(store)
        for number in range(1, MAX_LOSSES + 3):
            (claim,) = await store.claim(OFFER, 1, LEASE_S)
            assert claim.lease.attempt == number
            await store.finish(claim.lease, INTERRUPTED)

        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        job = await store.finish(claim.lease, SUCCESS)
        assert (job.state, len(await store.attempts(job.id))) == (JobState.SUCCEEDED, job.attempt)

    async def test_interrupted_repeat(self, store: JobStore):
        """Repeating the report does not disturb the next attempt."""
        first = await running(store)
        await store.finish(first.lease, INTERRUPTED)
        (second,) = await store.claim(OTHER_OFFER, 1, LEASE_S)

        job = await store.finish(first.lease, INTERRUPTED)

        assert job.state is JobState.RUNNING
        await store.check_lease(second.lease)

    @pytest.mark.parametrize("end_reason", [EndReason.LOST, EndReason.EXITED])
    async def test_interrupted_is_told_as_such(self, store: JobStore, end_reason: EndReason):
        """Whatever the command made of it, an interruption is no loss and no end of its own."""
        claim = await running(store)
        outcome = replace(INTERRUPTED, end_reason=end_reason)

        job = await store.finish(claim.lease, outcome)

        (attempt,) = await store.attempts(job.id)
        assert (attempt.state, attempt.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)
        assert attempt.message == INTERRUPTED_MESSAGE
        assert await store.finish(claim.lease, outcome) == job

    async def test_interrupted_while_cancelling(self, store: JobStore):
        """A cancelled job does not run again."""
        claim = await running(store)
        await store.cancel(claim.lease.job_id)

        job = await store.finish(claim.lease, INTERRUPTED)

        assert (job.state, job.end_reason) == (JobState.CANCELLED, EndReason.CANCELLED)


class TestHeld:
    async def test_check(self, store: JobStore):
        """The holder passes, while the job runs and while it is being cancelled."""
        claim = await running(store)
        await store.check_lease(claim.lease)
        await store.cancel(claim.lease.job_id)
        await store.check_lease(claim.lease)
        for lease in not_held(claim.lease):
            with pytest.raises(LeaseLostError):
                await store.check_lease(lease)

        await store.finish(claim.lease, SUCCESS)
        with pytest.raises(LeaseLostError):
            await store.check_lease(claim.lease)

    async def test_of_one_start(self, store: JobStore):
        """What a start of an agent-runner holds, oldest job first; nothing of others, nothing that has ended."""
        await submitted(store, 5)
        ended, cancelling, plain = await store.claim(OFFER, 3, LEASE_S)
        await store.claim(OTHER_OFFER, 1, LEASE_S)
        (of_next,) = await store.claim(AgentOffer(agent=NEXT), 1, LEASE_S)
        await store.finish(ended.lease, SUCCESS)
        await store.cancel(cancelling.lease.job_id)

        assert await store.held(OFFER.agent) == [cancelling.lease, plain.lease]
        assert await store.held(NEXT) == [of_next.lease]
        assert await store.held(AgentIdentity(name="nobody", incarnation="1")) == []
