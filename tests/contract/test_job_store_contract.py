"""What every JobStore does: submits and claims. Its other promises are in the files beside this one."""

from __future__ import annotations

import asyncio

import pytest

from agent_runner.job_spec import JobSpec, SourceSpec
from agent_runner.sandbox_spec import SandboxSpec
from daemon.clock import FixedClock
from daemon.errors import (
    JobNotFoundError,
    LeaseLostError,
    RequestIdReusedError,
)
from daemon.jobs.models import AgentOffer, Job, NewJob
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    OTHER_OFFER,
    SUCCESS,
    claimed_ids,
    job_ids,
    new_job,
    submitted,
)


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

    async def test_known_request_ids(self, store: JobStore):
        """Those of accepted jobs, whatever became of them."""
        await store.submit([new_job(request_id="r"), new_job(request_id="s"), new_job()])
        await store.cancel((await store.submit([new_job(request_id="r")]))[0].id)

        assert await store.known_requests(["r", "t", "s", "r"]) == {"r", "s"}
        assert await store.known_requests([]) == set()

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
        await store.submit([fresh._replace(payload_sha256="other")])
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


async def test_then_follows_a_change(store: JobStore):
    """It is called once with the result, when the change can be read, before the method returns; not for what is refused."""
    told: list[object] = []
    job = new_job(request_id="once")

    jobs = await store.submit([job], told.append)
    claims = await store.claim(OFFER, 1, LEASE_S, told.append)
    ended = await store.finish(claims[0].lease, SUCCESS, (), told.append)
    with pytest.raises(RequestIdReusedError):
        await store.submit([job._replace(id="other", payload_sha256="other")], told.append)
    with pytest.raises(LeaseLostError):
        await store.finish(claims[0].lease._replace(lease_token="x"), SUCCESS, (), told.append)

    assert told == [jobs, claims, ended]


async def test_close_twice(store: JobStore):
    """Closing again is harmless."""
    await store.close()
    await store.close()
