"""The agent-runner's half of the API over real sockets. Time stands still unless a test moves it."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest

from daemon.server.app import JobServer
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import (
    DEADLINE_S,
    Client,
    FakeAgent,
    refused,
    serving,
)

Code = grpc.StatusCode


@pytest.fixture
async def client(tmp_path):
    async with serving(tmp_path) as connected:
        yield connected


async def nothing_sent(agent: FakeAgent) -> bool:
    """Tell whether the server has nothing to say: what it says to a renewal comes after all before it."""
    probe = agent_pb.LeaseRef(job_id="probe", attempt=1, lease_token="x")
    await agent.renew(probe)
    response = await agent.next()
    return response.lease_lost == probe


async def requeued(client: Client, job_id: str) -> None:
    """Wait until a job is back in the queue after its first attempt."""
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[job_id]))
    async with asyncio.timeout(DEADLINE_S):
        event = (await watch.read()).event
        while (event.attempt, event.state) != (1, job_pb2.JOB_STATE_PENDING):
            event = (await watch.read()).event
    watch.cancel()


# --- register and hello -----------------------------------------------------------------------


async def test_register_tells_lease_and_renewal(client: Client):
    """The server decides how long leases last."""
    response = await FakeAgent(client).register()

    assert (response.lease_duration.seconds, response.renew_interval.seconds) == (30, 10)


@pytest.mark.parametrize(
    "fields", [{"slots": 0}, {"slots": 257}, {"name": ""}, {"incarnation": ""}, {"name": "x" * 129}]
)
async def test_malformed_registration_is_refused(client: Client, fields):
    """One clear error each."""
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await FakeAgent(client, **fields).register()


async def test_work_needs_a_registration_and_a_hello(client: Client):
    """A stream of nobody is refused."""
    agent = FakeAgent(client)
    await agent.hello()
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.next()
    await agent.register()
    agent.call = client.agents.Work()
    await agent.renew()
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.next()


async def test_second_hello_is_refused(client: Client):
    """Hello opens a stream and is only that."""
    agent = await FakeAgent(client).connect()
    await agent.say(hello=agent_pb.WorkHello(agent=agent.identity))
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.next()


# --- dispatch ---------------------------------------------------------------------------------


async def test_submit_is_pushed_to_a_waiting_agent(client: Client):
    """Nothing polls: no timer exists between a submit and its assignment."""
    agent = await FakeAgent(client).connect()
    loop = asyncio.get_running_loop()
    for _ in range(5):
        begin = loop.time()
        job = await client.submit("true")
        assignment = await agent.assignment()
        assert loop.time() - begin < 0.5
        assert assignment.lease.job_id == job.id
        assert [*assignment.spec.argv] == ["true"]
        await agent.finish(assignment.lease)


async def test_slots_bound_what_is_assigned(client: Client):
    """With all slots taken nothing comes; each finish brings one."""
    agent = await FakeAgent(client, slots=2).connect()
    jobs = [await client.submit("echo", str(number)) for number in range(4)]
    held = [await agent.assignment(), await agent.assignment()]
    assert await nothing_sent(agent)

    await agent.finish(held[0].lease)

    third = await agent.assignment()
    assert third.lease.job_id == jobs[2].id
    assert await nothing_sent(agent)


async def test_priority_and_labels_decide(client: Client):
    """Higher first; a job whose labels nobody offers waits."""
    needs_gpu = await client.submit("true", labels={"gpu": "yes"})
    low = await client.submit("true")
    high = await client.submit("true", priority=5)
    agent = await FakeAgent(client, slots=3).connect()

    assert [(await agent.assignment()).lease.job_id for _ in range(2)] == [high.id, low.id]
    assert await nothing_sent(agent)
    other = await FakeAgent(client, name="other", labels={"gpu": "yes"}).connect()
    assert (await other.assignment()).lease.job_id == needs_gpu.id


async def test_two_agents_share_without_repeat(client: Client):
    """Every job goes to one agent-runner."""
    agents = [await FakeAgent(client, name=name, slots=5).connect() for name in "ab"]
    jobs = [await client.submit("true") for _ in range(10)]

    given = [(await agent.assignment()).lease.job_id for agent in agents for _ in range(5)]

    assert sorted(given) == sorted(job.id for job in jobs)


async def test_draining_agent_gets_nothing_more(client: Client):
    """By message or by hello; what it holds goes on."""
    agent = await FakeAgent(client).connect()
    await client.submit("true")
    held = await agent.assignment()
    await agent.say(drain=agent_pb.WorkDrain())
    assert await nothing_sent(agent)

    await client.submit("true")

    assert await nothing_sent(agent)
    await agent.finish(held.lease)
    assert await nothing_sent(agent)
    other = await FakeAgent(client, name="other").connect(draining=True)
    assert await nothing_sent(other)


async def test_short_job_costs_three_commits(client: Client):
    """Submit, claim, finish; and renewals of nothing cost none."""
    agent = await FakeAgent(client).connect()
    before = client.store.commits
    for _ in range(10):
        await client.submit("true")
        assignment = await agent.assignment()
        await agent.finish(assignment.lease, b"hello\n")

    assert client.store.commits - before <= 30
    assert await nothing_sent(agent)


# --- finish -----------------------------------------------------------------------------------


async def test_finish_ends_the_job_and_repeats_harmlessly(client: Client):
    """The same report twice is one end; another report for an ended attempt is refused."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    sandbox = job_pb2.SandboxInfo(kind="filesystem", tier="bwrap", walls_not_held=["network"])
    for _ in range(2):
        await agent.finish(lease, b"log", exit_code=3, message="no", sandbox=sandbox)

    ended = await client.get(job.id)
    assert (ended.state, ended.exit_code, ended.message) == (job_pb2.JOB_STATE_FAILED, 3, "no")
    assert ended.sandbox == ended.attempts[0].sandbox == sandbox
    assert ended.attempts[0].log_bytes == 3
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await agent.finish(lease, b"log", exit_code=0)
    assert await client.get(job.id) == ended


@pytest.mark.parametrize(
    "fields",
    [
        {"end_reason": job_pb2.END_REASON_UNSPECIFIED},
        {"exit_code": None},
        {"log_sha256": "nonsense"},
        {"log_offset": -1},
        {"log_bytes": -1},
        {"log_tail": b"more than log_bytes"},
    ],
)
async def test_malformed_finish_is_refused(client: Client, fields):
    """One clear error each; the attempt runs on."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.finish(lease, **fields)
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING


async def test_foreign_token_is_no_lease(client: Client):
    """Knowing the job and the attempt is not enough, and frees no slot."""
    agent = await FakeAgent(client, slots=1).connect()
    job = await client.submit("true")
    await client.submit("true")
    lease = (await agent.assignment()).lease
    forged = agent_pb.LeaseRef(job_id=lease.job_id, attempt=1, lease_token="guess")
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await agent.finish(forged, b"forged")
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await agent.append(forged)

    assert await nothing_sent(agent)
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING
    assert (await client.log(job.id))[0] == b""


async def test_interrupted_attempt_does_not_count(client: Client):
    """The job runs again under a new attempt with a log of its own."""
    agent = await FakeAgent(client, slots=1).connect()
    job = await client.submit("true")
    for number in range(1, 7):
        lease = (await agent.assignment()).lease
        assert lease.attempt == number
        await agent.finish(
            lease,
            f"try {number}".encode(),
            interrupted=True,
            end_reason=job_pb2.END_REASON_CANCELLED,
        )

    await agent.finish((await agent.assignment()).lease, b"done")

    ended = await client.get(job.id)
    assert (ended.state, ended.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 7)
    assert (await client.log(job.id, attempt=3))[0] == b"try 3"
    assert (await client.log(job.id))[0] == b"done"


# --- cancel -----------------------------------------------------------------------------------


async def test_cancel_is_pushed_to_the_agent(client: Client):
    """A running job is cancelled by the agent-runner that has it."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease

    assert (await client.cancel(job.id)).state == job_pb2.JOB_STATE_CANCELLING

    assert (await agent.next()).cancel.lease == lease
    await agent.finish(lease, end_reason=job_pb2.END_REASON_CANCELLED, exit_code=None)
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_CANCELLED


async def test_cancel_reaches_an_agent_that_was_away(client: Client):
    """The hello after a lost connection brings it."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    agent.call.cancel()
    await client.cancel(job.id)

    await agent.connect(lease)

    assert (await agent.next()).cancel.lease == lease


# --- lost leases ------------------------------------------------------------------------------


async def test_expired_lease_is_told_and_the_job_runs_again(client: Client):
    """The reaper ends it; its holder is told, gets it again, and cannot report for the old attempt."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"part")

    client.clock.advance(31)

    assert (await agent.next()).lease_lost == lease
    again = await agent.assignment()
    assert (again.lease.job_id, again.lease.attempt) == (job.id, 2)
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await agent.finish(lease, b"late")
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await log.send(4, b"late")
    data, end = await client.log(job.id, attempt=1)
    assert (data, end.length, end.truncated) == (b"part", 4, "agent_died")
    assert end.sha256 == hashlib.sha256(b"part").hexdigest()


async def test_renewed_lease_lives_on(client: Client):
    """A renewal gives a full term."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    for _ in range(4):
        client.clock.advance(20)
        await agent.renew(lease)
        assert await nothing_sent(agent)

    await agent.finish(lease)

    assert (await client.get(job.id)).attempt == 1


async def test_job_that_is_lost_too_often_fails(client: Client):
    """After three losses the fourth is the end."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    for _ in range(4):
        lease = (await agent.assignment()).lease
        client.clock.advance(31)
        assert (await agent.next()).lease_lost == lease

    ended = await client.get(job.id)
    assert (ended.state, ended.end_reason) == (job_pb2.JOB_STATE_FAILED, job_pb2.END_REASON_LOST)


async def test_new_incarnation_ends_the_leases_of_the_old(client: Client):
    """At once: a dead agent-runner costs no lease time. The old one is told and cannot come back."""
    old = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await old.assignment()).lease

    new = await FakeAgent(client, incarnation="second").connect()

    assert (await new.assignment()).lease.attempt == 2
    assert (await old.next()).lease_lost == lease
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await old.next()
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await old.register()
    assert (await client.get(job.id)).attempts[0].end_reason == job_pb2.END_REASON_LOST


# --- reconnect --------------------------------------------------------------------------------


async def test_reconnect_keeps_what_it_names(client: Client):
    """Leases named by hello stay held and count against the slots."""
    agent = await FakeAgent(client, slots=1).connect()
    job = await client.submit("true")
    await client.submit("true")
    lease = (await agent.assignment()).lease
    agent.call.cancel()

    await agent.connect(lease)

    assert await nothing_sent(agent)
    await agent.finish(lease)
    assert (await client.get(job.id)).attempt == 1
    assert (await agent.assignment()).lease.attempt == 1


async def test_reconnect_gives_back_what_it_does_not_name(client: Client):
    """An assignment that never arrived is assigned again at once and does not count as a loss."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    for _ in range(5):
        await agent.assignment()
        agent.call.cancel()
        await agent.connect()

    assert (await agent.assignment()).lease.attempt == 6
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING


async def test_reconnect_after_a_server_restart(tmp_path):
    """The store knows who holds what; the new server asks it, and every live lease gets a full term."""
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        kept, dropped = await client.submit("true"), await client.submit("true")
        lease = (await agent.assignment()).lease
        await agent.assignment()
    async with serving(tmp_path) as client:
        agent.client = client
        await agent.connect(lease)
        again = await agent.assignment()
        assert (again.lease.job_id, again.lease.attempt) == (dropped.id, 2)
        await agent.finish(lease, b"x")
        assert (await client.get(kept.id)).attempt == 1


async def test_reconnect_is_told_what_it_lost(client: Client):
    """A lease that ended meanwhile is not held any more, and its slot is free."""
    agent = await FakeAgent(client, slots=1).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    agent.call.cancel()
    client.clock.advance(31)
    await requeued(client, job.id)

    await agent.connect(lease)

    assert (await agent.next()).lease_lost == lease
    assert (await agent.assignment()).lease.attempt == 2


async def test_newer_stream_replaces_an_older_one(client: Client):
    """A half-dead connection does not keep assignments."""
    agent = await FakeAgent(client).connect()
    first = agent.call

    await agent.hello()

    assert (await agent.next()).HasField("welcome")
    assert await first.read() is grpc.aio.EOF
    await client.submit("true")
    assert await agent.assignment()


async def test_claim_that_outlives_its_stream_is_given_back(client: Client, monkeypatch):
    """The stream dies while the claim commits: another agent-runner gets the job, nothing is lost."""
    claim = client.store.claim
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(offer, limit, lease_s):
        claims = await claim(offer, limit, lease_s)
        if offer.agent.name == "agent" and claims:
            reached.set()
            await go_on.wait()
        return claims

    monkeypatch.setattr(client.store, "claim", slow)
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    async with asyncio.timeout(DEADLINE_S):
        await reached.wait()
        agent.call.cancel()
        await client.server.wait_disconnected()
    other = await FakeAgent(client, name="other").connect()
    go_on.set()

    lease = (await other.assignment()).lease
    assert (lease.job_id, lease.attempt) == (job.id, 2)
    await other.finish(lease)
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_submit_of_a_client_that_left_is_dispatched(client: Client, monkeypatch):
    """The job was stored, so it must run although nobody waits for the answer."""
    submit = client.store.submit
    stored, go_on = asyncio.Event(), asyncio.Event()

    async def slow(jobs):
        accepted = await submit(jobs)
        stored.set()
        await go_on.wait()
        return accepted

    monkeypatch.setattr(client.store, "submit", slow)
    agent = await FakeAgent(client).connect()
    leaving = asyncio.create_task(client.submit("true"))
    async with asyncio.timeout(DEADLINE_S):
        await stored.wait()
        leaving.cancel()
        await asyncio.wait([leaving])
    assert await nothing_sent(agent)
    go_on.set()

    assert await agent.assignment()


# --- logs -------------------------------------------------------------------------------------


async def test_log_is_acknowledged_piece_by_piece(client: Client):
    """The first answer is what is stored; a piece that is sent again changes nothing."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    assert log.stored == 0
    assert await log.send(0, b"hello ") == 6
    assert await log.send(0, b"hello wor") == 9
    assert await log.send(2, b"llo") == 9
    log.call.cancel()

    log = await agent.append(lease)

    assert log.stored == 9
    assert await log.send(9, b"ld\n") == 12
    await log.call.done_writing()
    assert await log.call.read() is grpc.aio.EOF
    assert (await client.log(job.id))[0] == b"hello world\n"


async def test_gap_is_refused_with_the_stored_length(client: Client):
    """In a stream and in a finish; the agent-runner sends the rest and repeats."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"0123456789")
    async with refused(Code.FAILED_PRECONDITION, "LOG_GAP") as caught:
        await log.send(11, b"x")
    assert dict(caught[0].trailing_metadata())["acknowledged-offset"] == "10"
    for fields in ({"log_offset": 15, "log_bytes": 20}, {"log_offset": 10, "log_bytes": 20}):
        async with refused(Code.FAILED_PRECONDITION, "LOG_GAP") as caught:
            await agent.finish(lease, b"abcde"[: 20 - fields["log_offset"]], **fields)
    assert dict(caught[0].trailing_metadata())["acknowledged-offset"] == "15"
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING

    await agent.finish(lease, b"fghij", log_offset=15, log_bytes=20)

    assert (await client.log(job.id))[0] == b"0123456789abcdefghij"


async def test_piece_over_the_limit_is_refused(client: Client):
    """1 MiB at most."""
    agent = await FakeAgent(client).connect()
    await client.submit("true")
    log = await agent.append((await agent.assignment()).lease)
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await log.send(0, b"x" * ((1 << 20) + 1))


async def test_log_goes_on_while_a_job_is_cancelled(client: Client):
    """The lease is held until the end, so what the command says while it stops is kept."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await client.cancel(job.id)

    assert await log.send(0, b"stopping") == 8


async def test_stop_answers_a_finish_under_way(tmp_path, monkeypatch):
    """What was begun is answered; the stop waits for it."""
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        lease = (await agent.assignment()).lease
        finish = client.store.finish
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(lease, outcome):
            begun.set()
            await go_on.wait()
            return await finish(lease, outcome)

        monkeypatch.setattr(client.store, "finish", slow)
        finishing = asyncio.create_task(agent.finish(lease))
        async with asyncio.timeout(DEADLINE_S):
            await begun.wait()
            stopping = asyncio.create_task(client.server.stop(DEADLINE_S))
            async with refused(Code.UNAVAILABLE, "SHUTTING_DOWN"):
                await agent.next()
            go_on.set()
            await finishing
            await stopping
    async with serving(tmp_path) as client:
        assert (await client.get(job.id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_idle_server_sleeps(client: Client):
    """With nothing leased the reaper waits for a lease instead of looking every second."""
    server: JobServer = client.server
    agent = await FakeAgent(client).connect()
    await client.submit("true")
    await agent.finish((await agent.assignment()).lease)
    async with asyncio.timeout(DEADLINE_S):
        while server._dispatcher.leased.is_set():
            await client.jobs.ListJobs(pb.ListJobsRequest())
