"""What every JobStore does: submits, claims, queries and cancels. Ends of attempts are in test_job_store_leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent_runner.job_spec import JobSpec, SandboxSpec, SourceSpec
from agent_runner.outcome import EndReason, Outcome
from daemon.clock import FixedClock
from daemon.errors import (
    JobNotCancellableError,
    JobNotFoundError,
    RequestIdReusedError,
    UsageError,
)
from daemon.jobs.models import AgentOffer, Job, NewJob
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    BACKENDS,
    LEASE_S,
    OFFER,
    OTHER_OFFER,
    SUCCESS,
    claimed_ids,
    job_ids,
    new_job,
    running,
    submitted,
)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(params=BACKENDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock
) -> AsyncIterator[JobStore]:
    store = BACKENDS[request.param](tmp_path, clock)
    await store.open()
    yield store
    await store.close()


class TestSubmit:
    async def test_accepts_in_order(self, store: JobStore, clock: FixedClock):
        """Each job comes back PENDING, in the order of the call."""
        new = [new_job(), new_job()]

        jobs = await store.submit(new)

        assert jobs == [
            Job(id=job.id, spec=job.spec, state=JobState.PENDING, create_us=clock.now_us())
            for job in new
        ]
        assert [await store.get(job.id) for job in new] == jobs

    async def test_accepts_nothing(self, store: JobStore):
        """An empty call is harmless."""
        assert await store.submit([]) == []

    async def test_keeps_every_field_of_the_spec(self, store: JobStore):
        """A spec is the same after the store as before."""
        spec = JobSpec(
            argv=("/bin/sh", "-c", "printf 'ä\n\\0'"),
            name="jöb",
            env={"A": "1", "B": "\x1b"},
            source=SourceSpec(kind="copy", path="/src"),
            code_dir="/job/x",
            job_dir="/job/y",
            timeout_s=1.5,
            idle_timeout_s=0.25,
            sandbox=SandboxSpec(
                min="plain", network="off", memory_bytes=1 << 40, pids=7, output_bytes=9
            ),
            labels={"os": "linux"},
            priority=-3,
        )

        await store.submit([NewJob(id="job", spec=spec, request_id=None, payload_sha256="")])

        assert (await store.get("job")).spec == spec

    async def test_repeat_returns_the_first_job(self, store: JobStore):
        """A known request id makes no second job, whatever became of the first."""
        (first,) = await store.submit([new_job(request_id="r")])
        await store.claim(OFFER, 1, LEASE_S)

        (again,) = await store.submit([new_job(request_id="r")])

        assert again == await store.get(first.id)
        assert again.state is JobState.RUNNING
        assert await store.last_event_id() == 2

    async def test_repeat_in_one_call(self, store: JobStore):
        """A request id that stands twice makes one job."""
        new = new_job(request_id="r")

        jobs = await store.submit([new, new_job(), new_job(request_id="r"), new])

        assert [jobs[0], jobs[0]] == [jobs[2], jobs[3]]
        assert await store.count(JobState.PENDING) == 2

    async def test_without_request_id_each_is_new(self, store: JobStore):
        """Equal jobs without a request id are different jobs."""
        await store.submit([new_job(), new_job()])

        assert await store.count(JobState.PENDING) == 2

    async def test_reused_request_id_accepts_nothing(self, store: JobStore):
        """A request id with another payload refuses the whole call."""
        await store.submit([new_job(request_id="r", payload="one")])
        fresh = new_job(request_id="s")

        with pytest.raises(RequestIdReusedError, match="'r'"):
            await store.submit([fresh, new_job(request_id="r", payload="two"), new_job()])

        with pytest.raises(JobNotFoundError):
            await store.get(fresh.id)
        assert await store.count(JobState.PENDING) == 1
        await store.submit([replace(fresh, payload_sha256="other")])
        assert [event.id for event in await store.events(0, 9, ())] == [1, 2]

    async def test_reused_in_one_call_accepts_nothing(self, store: JobStore):
        """One request id with two payloads in one call refuses it."""
        with pytest.raises(RequestIdReusedError):
            await store.submit([new_job(request_id="r"), new_job(request_id="r", payload="two")])

        assert await store.last_event_id() == 0

    async def test_taken_id_is_a_defect(self, store: JobStore):
        """A job id that exists accepts nothing and overwrites nothing."""
        first, second = new_job(), new_job()
        await store.submit([first])

        for batch in ([second, first], [second, second]):
            with pytest.raises(RuntimeError):
                await store.submit(batch)

        assert await store.count(JobState.PENDING) == 1


class TestClaim:
    async def test_empty_queue(self, store: JobStore):
        """Nothing pending gives nothing."""
        assert await store.claim(OFFER, 5, LEASE_S) == []

    async def test_starts_an_attempt(self, store: JobStore, clock: FixedClock):
        """A claimed job is RUNNING with an attempt that its lease names."""
        (job_id,) = await submitted(store)
        clock.advance(1)

        (claim,) = await store.claim(OFFER, 1, LEASE_S)

        job = await store.get(job_id)
        (attempt,) = await store.attempts(job_id)
        assert (job.state, job.attempt, job.start_us) == (JobState.RUNNING, 1, clock.now_us())
        assert claim.spec == job.spec
        assert attempt.lease == claim.lease
        assert (attempt.state, attempt.agent) == (JobState.RUNNING, OFFER.agent)
        assert attempt.start_us == clock.now_us()
        assert attempt.expire_us == clock.steady_us() + 30_000_000

    async def test_higher_priority_then_earlier_submit(self, store: JobStore):
        """Order is priority, highest first, then age."""
        (old,) = await submitted(store)
        low = await submitted(store, 1, priority=-5)
        high = await submitted(store, 2, priority=7)
        (young,) = await submitted(store)

        assert await claimed_ids(store) == [*high, old, young, *low]

    async def test_limit(self, store: JobStore):
        """Never more than asked for, and the rest stays in order."""
        ids = await submitted(store, 5)

        assert await claimed_ids(store, limit=0) == []
        assert await claimed_ids(store, limit=2) == ids[:2]
        assert await claimed_ids(store, limit=9) == ids[2:]

    async def test_tokens_differ(self, store: JobStore):
        """Each attempt has a lease token of its own."""
        await submitted(store, 50)

        claims = await store.claim(OFFER, 50, LEASE_S)

        tokens = {claim.lease.lease_token for claim in claims}
        assert len(tokens) == 50
        assert min(map(len, tokens)) >= 16

    async def test_every_label_must_be_offered(self, store: JobStore):
        """A job goes to who has all its labels with the same values; more labels do not matter."""
        await store.submit([new_job(labels={"os": "linux", "gpu": "yes"})])
        for offered in ({}, {"os": "linux"}, {"os": "linux", "gpu": "no"}, {"gpu": "yes"}):
            assert await store.claim(AgentOffer(agent=OFFER.agent, labels=offered), 1, 1.0) == []

        offer = AgentOffer(agent=OFFER.agent, labels={"gpu": "yes", "os": "linux", "disk": "big"})

        assert len(await store.claim(offer, 1, LEASE_S)) == 1

    @pytest.mark.parametrize("more_labels", [0, 20])
    async def test_order_across_label_sets(self, store: JobStore, more_labels: int):
        """Priority and age order all jobs that match, whatever their labels."""
        labels = [{}, {"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}, {"c": "3"}]
        new = [
            new_job(labels=labels[number % len(labels)], priority=number * 7 % 3)
            for number in range(30)
        ]
        await store.submit(new)
        labels_offered = {"a": "1", "b": "2"} | {f"x{n}": "y" for n in range(more_labels)}
        offer = AgentOffer(agent=OFFER.agent, labels=labels_offered)

        first = await claimed_ids(store, offer, limit=10)
        rest = await claimed_ids(store, offer)

        matching = [job for job in new if "c" not in job.spec.labels]
        best = sorted(matching, key=lambda job: -job.spec.priority)
        assert first + rest == [job.id for job in best]

    @pytest.mark.parametrize("sets", [1, 10_000])
    async def test_unmatched_jobs_hide_nobody(self, store: JobStore, sets: int):
        """A job behind ten thousand that do not match is still found."""
        await store.submit(
            [new_job(labels={"n": str(number % sets)}, priority=9) for number in range(10_000)]
        )
        (plain,) = await submitted(store)

        assert await claimed_ids(store, limit=5) == [plain]

    async def test_never_twice(self, store: JobStore):
        """Agent-runners that claim at once share the jobs."""
        ids = await submitted(store, 200)

        async def claim_all(offer: AgentOffer, limit: int) -> list[str]:
            mine: list[str] = []
            while claims := await store.claim(offer, limit, LEASE_S):
                mine += job_ids(claims)
                await asyncio.sleep(0)  # lets the others in, also with a store that never waits
            return mine

        shares = await asyncio.gather(
            *(claim_all(offer, limit) for offer in (OFFER, OTHER_OFFER) for limit in (1, 2, 3))
        )

        assert sorted(ids) == sorted(job_id for share in shares for job_id in share)

    async def test_submit_while_claiming(self, store: JobStore):
        """Submits and claims at the same time lose and double nothing."""
        claims = await asyncio.gather(
            *(submitted(store, 3) for _ in range(20)),
            *(claimed_ids(store, limit=2) for _ in range(20)),
        )
        rest = await claimed_ids(store)

        made = [job_id for ids in claims[:20] for job_id in ids]
        taken = [job_id for ids in claims[20:] for job_id in ids]
        assert sorted(made) == sorted(taken + rest)


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


async def test_close_twice(store: JobStore):
    """Closing again is harmless."""
    await store.close()
    await store.close()
