"""Leases over lost connections, dead agent-runners and restarts. Time stands still unless a test moves it."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import grpc
import pytest

from daemon.jobs.log_files import LogFiles
from daemon.server.log_writer import THREAD_BYTES
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2
from tests.integration.grpc_server import (
    DEADLINE_S,
    Client,
    FakeAgent,
    refused,
    requeued,
    serving,
)

Code = grpc.StatusCode


async def nothing_sent(agent: FakeAgent) -> bool:
    """Tell whether the server has nothing to say: what it says to a renewal comes after all before it."""
    probe = agent_pb.LeaseRef(job_id="probe", attempt=1, lease_token="x")
    await agent.renew(probe)
    return await agent.next() == ("lost", probe)


async def test_expired_lease_is_told_and_the_job_runs_again(client: Client):
    """The reaper ends it; its holder is told, gets it again, and cannot report for the old attempt."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"part")

    client.clock.advance(31)

    assert await agent.next() == ("lost", lease)
    again = await agent.assignment()
    assert (again.lease.job_id, again.lease.attempt) == (job.id, 2)
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await agent.finish(lease, b"late")
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await log.send(4, b"late")
    data, end = await client.log(job.id, attempt=1)
    assert (data, end.length, end.truncated) == (b"part", 4, "agent_died")
    assert end.sha256 == hashlib.sha256(b"part").hexdigest()


async def test_piece_under_way_when_its_lease_ends_is_not_stored(client: Client, monkeypatch):
    """The lease was held when it came, but a follower was told the end before it was written."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"part")
    append = LogFiles.append
    reached, go_on = threading.Event(), threading.Event()

    def slow(*args):
        reached.set()
        assert go_on.wait(DEADLINE_S)
        return append(*args)

    monkeypatch.setattr(LogFiles, "append", slow)
    sending = asyncio.create_task(log.send(4, b"x" * THREAD_BYTES))
    assert await asyncio.to_thread(reached.wait, DEADLINE_S)
    client.clock.advance(31)
    assert await agent.next() == ("lost", lease)
    data, end = await client.log(job.id, attempt=1)
    assert (data, end.length, end.complete) == (b"part", 4, True)
    go_on.set()

    async with refused(Code.ABORTED, "LEASE_LOST"):
        await sending
    assert (await client.log(job.id, attempt=1))[0] == b"part"


async def test_end_that_was_read_is_final_before_it_is_announced(client: Client, monkeypatch):
    """A reader may find the attempt ended in the store before anybody else in the server knows."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"part")
    expire = client.store.expire_leases
    ended, announce = asyncio.Event(), asyncio.Event()

    async def slow():
        jobs = await expire()
        if jobs:
            ended.set()
            await announce.wait()
        return jobs

    monkeypatch.setattr(client.store, "expire_leases", slow)
    client.clock.advance(31)
    async with asyncio.timeout(DEADLINE_S):
        await ended.wait()
    assert (await client.log(job.id, attempt=1))[1].complete

    async with refused(Code.ABORTED, "LEASE_LOST"):
        await log.send(4, b"late")
    announce.set()
    assert (await client.log(job.id, attempt=1))[0] == b"part"


async def test_log_takes_nothing_while_its_end_is_stored(client: Client, monkeypatch):
    """Length and hash are those of the report; a forgotten stream of the same lease adds nothing."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    finish = client.store.finish
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(*args):
        begun.set()
        await go_on.wait()
        return await finish(*args)

    monkeypatch.setattr(client.store, "finish", slow)
    finishing = asyncio.create_task(agent.finish(lease, b"whole"))
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
        assert await log.send(0, b"whole") == 5
        async with refused(Code.ABORTED, "LEASE_LOST"):
            await log.send(5, b" and more")
        go_on.set()
        await finishing

    data, end = await client.log(job.id)
    assert (data, end.length, end.sha256) == (b"whole", 5, hashlib.sha256(b"whole").hexdigest())


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


async def test_what_is_sent_renews_a_lease_that_no_stream_does(client: Client):
    """An agent-runner that starts anew delivers what is left before it has a stream, however long that takes."""
    agent = await FakeAgent(client).connect()
    await client.submit("true")
    lease = (await agent.assignment()).lease
    agent.call.cancel()
    async with asyncio.timeout(DEADLINE_S):
        await client.server._dispatcher.wait_disconnected()
    client.clock.advance(20)
    log = await agent.append(lease)
    content = b"x" * 4
    for offset in range(2):
        client.clock.advance(20)
        assert await client.store.expire_leases() == []
        assert await log.send(offset, b"y") == offset + 1

    client.clock.advance(20)
    digest = hashlib.sha256(content).hexdigest()
    outputs = client.agents.UploadArtifact()
    await outputs.write(agent_pb.UploadArtifactRequest(lease=lease, digests=[digest]))
    assert list((await outputs.read()).missing) == [digest]
    client.clock.advance(20)
    first = agent_pb.UploadArtifactRequest(sha256=digest, size_bytes=4, data=content)
    await outputs.write(first)
    await outputs.done_writing()
    assert (await outputs.read()).stored == digest
    client.clock.advance(20)

    assert await client.store.expire_leases() == []
    artifact = job_pb2.Artifact(name="x", sha256=digest, size_bytes=4, mode=0o644)
    await agent.finish(lease, log_offset=2, log_bytes=2, outputs=[artifact])
    assert (await client.get(lease.job_id)).attempt == 1


async def test_job_that_is_lost_too_often_fails(client: Client):
    """After three losses the fourth is the end."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    for _ in range(4):
        lease = (await agent.assignment()).lease
        client.clock.advance(31)
        assert await agent.next() == ("lost", lease)

    ended = await client.get(job.id)
    assert (ended.state, ended.end_reason) == (job_pb2.JOB_STATE_FAILED, job_pb2.END_REASON_LOST)


async def test_new_incarnation_ends_the_leases_of_the_old(client: Client):
    """At once: a dead agent-runner costs no lease time. The old one is told and cannot come back."""
    old = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await old.assignment()).lease

    new = await FakeAgent(client, incarnation="second").connect()

    assert (await new.assignment()).lease.attempt == 2
    assert await old.next() == ("lost", lease)
    async with refused(Code.ABORTED, "AGENT_REPLACED"):
        await old.next()
    async with refused(Code.ABORTED, "AGENT_REPLACED"):
        await old.register()
    await old.hello()
    async with refused(Code.ABORTED, "AGENT_REPLACED"):
        await old.next()
    assert (await client.get(job.id)).attempts[0].end_reason == job_pb2.END_REASON_LOST


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
    job = await client.get(job.id)
    assert job.state == job_pb2.JOB_STATE_RUNNING
    for attempt in job.attempts[:-1]:
        assert attempt.state == job_pb2.JOB_STATE_CANCELLED
        assert attempt.end_reason == job_pb2.END_REASON_CANCELLED
        assert "did not reach" in attempt.message


@pytest.mark.parametrize("how", ["renewed", "named by a hello", "wrote to its log"])
async def test_attempt_that_is_dropped_again_and_again_fails(client: Client, how: str):
    """It arrived once, so what its agent-runner does not name any more is a loss and counts."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    for _ in range(4):
        lease = (await agent.assignment()).lease
        if how == "renewed":
            await agent.renew(lease)
            assert await nothing_sent(agent)
        elif how == "named by a hello":
            agent.call.cancel()
            await agent.connect(lease)
        else:
            log = await agent.append(lease)
            await log.send(0, b"x")
            log.call.cancel()
        agent.call.cancel()
        await agent.connect()

    ended = await client.get(job.id)
    assert (ended.state, ended.end_reason) == (job_pb2.JOB_STATE_FAILED, job_pb2.END_REASON_LOST)
    assert [attempt.end_reason for attempt in ended.attempts] == [job_pb2.END_REASON_LOST] * 4


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

    assert await agent.next() == ("lost", lease)
    assert (await agent.assignment()).lease.attempt == 2


async def test_newer_stream_replaces_an_older_one(client: Client):
    """A half-dead connection does not keep assignments."""
    agent = await FakeAgent(client).connect()
    first = agent.call

    await agent.hello()

    assert (await agent.next())[0] == "welcome"
    assert await first.read() is grpc.aio.EOF
    await client.submit("true")
    await agent.assignment()


async def test_claim_that_outlives_its_stream_is_given_back(client: Client, monkeypatch):
    """The stream dies while the claim commits: another agent-runner gets the job, nothing is lost."""
    claim = client.store.claim
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(offer, limit, lease_s, then):
        claims = await claim(offer, limit, lease_s)
        if offer.agent.name == "agent" and claims:
            reached.set()
            await go_on.wait()
        then(claims)
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
