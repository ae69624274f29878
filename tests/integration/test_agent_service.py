"""Register, dispatch, finish and cancel over real sockets. Time stands still unless a test moves it."""

from __future__ import annotations

import asyncio

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


async def nothing_sent(agent: FakeAgent) -> bool:
    """Tell whether the server has nothing to say: what it says to a renewal comes after all before it."""
    probe = agent_pb.LeaseRef(job_id="probe", attempt=1, lease_token="x")
    await agent.renew(probe)
    return await agent.next() == ("lost", probe)


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


async def test_submit_is_pushed_to_a_waiting_agent(client: Client):
    """Nothing polls: no timer exists between a submit and its assignment."""
    agent = await FakeAgent(client).connect()
    loop = asyncio.get_running_loop()
    took_s = []
    for _ in range(9):
        begin = loop.time()
        job = await client.submit("true")
        assignment = await agent.assignment()
        took_s.append(loop.time() - begin)
        assert assignment.lease.job_id == job.id
        assert [*assignment.spec.argv] == ["true"]
        await agent.finish(assignment.lease)
    # Most of them: this process may be kept waiting for a processor once.
    assert sorted(took_s)[4] < 0.5, took_s


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
    await agent.say(drain=True)
    assert await nothing_sent(agent)

    await client.submit("true")

    assert await nothing_sent(agent)
    await agent.finish(held.lease)
    assert await nothing_sent(agent)
    other = await FakeAgent(client, name="other").connect(draining=True)
    assert await nothing_sent(other)


async def test_short_job_costs_two_commits(client: Client):
    """Submit and claim, finish; and renewals of nothing cost none."""
    agent = await FakeAgent(client).connect()
    before = client.store.commits
    for _ in range(10):
        await client.submit("true")
        assignment = await agent.assignment()
        await agent.finish(assignment.lease, b"hello\n")

    assert client.store.commits - before <= 20
    assert await nothing_sent(agent)


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
        agent.call.cancel()
        await agent.connect()

    await agent.finish((await agent.assignment()).lease, b"done")

    ended = await client.get(job.id)
    assert (ended.state, ended.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 7)
    assert (await client.log(job.id, attempt=3))[0] == b"try 3"
    assert (await client.log(job.id))[0] == b"done"


async def test_interrupted_attempt_means_that_its_agent_drains(client: Client):
    """Its word may have been lost on the way: nothing more is assigned to it until it says hello again."""
    agent = await FakeAgent(client, slots=2).connect()
    first, second = await client.submit("true"), await client.submit("true")
    lease = (await agent.assignment()).lease
    await agent.assignment()
    await agent.finish(lease, interrupted=True, end_reason=job_pb2.END_REASON_CANCELLED)
    assert await nothing_sent(agent)
    await client.submit("true")
    await agent.register()
    assert await nothing_sent(agent)
    assert [(await client.get(job.id)).attempt for job in (first, second)] == [1, 1]
    agent.call.cancel()
    await agent.connect(draining=True)
    assert await nothing_sent(agent)
    agent.call.cancel()

    await agent.connect()

    assert (await agent.assignment()).lease.job_id == first.id


async def test_cancel_is_pushed_to_the_agent(client: Client):
    """A running job is cancelled by the agent-runner that has it."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease

    assert (await client.cancel(job.id)).state == job_pb2.JOB_STATE_CANCELLING

    assert await agent.next() == ("cancels", lease)
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

    assert await agent.next() == ("cancels", lease)


async def test_stop_answers_a_finish_under_way(tmp_path, monkeypatch):
    """What was begun is answered; the stop waits for it."""
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        lease = (await agent.assignment()).lease
        finish = client.store.finish
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(*args):
            begun.set()
            await go_on.wait()
            return await finish(*args)

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


async def test_reports_of_one_message_share_one_commit(client: Client):
    """What ended together is durable together, and the answer says so for each."""
    agent = await FakeAgent(client, slots=8).connect()
    jobs = [await client.submit("true") for _ in range(8)]
    leases = [(await agent.assignment()).lease for _ in jobs]
    before = client.store.commits

    await agent.say(reports=[agent.report(lease, b"log") for lease in leases])

    answers = [await agent.next() for _ in leases]
    assert answers == [("ended", lease) for lease in leases]
    assert client.store.commits - before == 1
    for job in jobs:
        assert (await client.get(job.id)).state == job_pb2.JOB_STATE_SUCCEEDED
        assert (await client.log(job.id))[0] == b"log"


async def test_what_follows_shares_the_commit_and_the_answer(client: Client):
    """The slots that one message frees are filled by the same commit, and the answer to it brings the jobs."""
    agent = await FakeAgent(client, slots=3).connect()
    jobs = [await client.submit("true") for _ in range(6)]
    leases = [(await agent.assignment()).lease for _ in range(3)]
    before = client.store.commits

    await agent.say(reports=[agent.report(lease) for lease in leases])

    response = await agent.call.read()
    assert [*response.ended] == leases
    assert [each.lease.job_id for each in response.assignments] == [job.id for job in jobs[3:]]
    assert client.store.commits - before == 1


async def test_a_refused_report_costs_the_others_nothing(client: Client):
    """One lease is lost, one log has a gap, one report is malformed: each is refused, and a call says why."""
    agent = await FakeAgent(client, slots=4).connect()
    jobs = [await client.submit("true") for _ in range(3)]
    good, gap, malformed = [(await agent.assignment()).lease for _ in jobs]
    unknown = agent_pb.LeaseRef(job_id="0" * 26, attempt=1, lease_token="x")

    await agent.say(
        reports=[
            agent.report(unknown),
            agent.report(gap, log_offset=5, log_bytes=5),
            agent.report(malformed, end_reason=job_pb2.END_REASON_UNSPECIFIED),
            agent.report(good),
        ]
    )

    answers = [await agent.next() for _ in range(4)]
    expected = [("ended", good)] + [("refused", one) for one in (unknown, gap, malformed)]
    assert sorted(answers, key=str) == sorted(expected, key=str)  # each as soon as it is known
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await agent.finish(unknown)
    async with refused(Code.FAILED_PRECONDITION, "LOG_GAP"):
        await agent.finish(gap, log_offset=5, log_bytes=5)
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.finish(malformed, end_reason=job_pb2.END_REASON_UNSPECIFIED)


async def test_assignments_of_any_size_arrive(client: Client):
    """What is too large for one message comes in several, in order."""
    agent = await FakeAgent(client, slots=8).connect(draining=True)
    jobs = [
        await client.submit("true", env={"A": "x" * 130_000, "B": "y" * 130_000}) for _ in range(8)
    ]
    jobs += [
        await client.submit("true", env={f"V{n}": "z" * 130_000 for n in range(7)})
        for _ in range(4)
    ]
    agent = await FakeAgent(client, slots=12, incarnation="second").connect()

    arrived = [(await agent.assignment()).lease.job_id for _ in jobs]

    assert arrived == [job.id for job in jobs]
