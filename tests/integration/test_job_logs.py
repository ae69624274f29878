"""Logs over real sockets: appended by an agent-runner, read and followed by a client."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import Any

import grpc

from daemon.errors import StoreUnavailableError
from daemon.jobs.log_files import LogFiles
from daemon.server.log_reader import LogReader
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


async def test_log_of_a_finished_job(client: Client):
    """From any offset, with length and hash at the end."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    await agent.finish((await agent.assignment()).lease, b"hello\nworld\n")

    data, end = await client.log(job.id)

    assert data == b"hello\nworld\n"
    digest = hashlib.sha256(data).hexdigest()
    assert (end.length, end.sha256, end.complete) == (12, digest, True)
    assert (await client.log(job.id, offset=6, attempt=1))[0] == b"world\n"
    assert (await client.log(job.id, offset=100))[0] == b""
    async with refused(Code.NOT_FOUND, "ATTEMPT_NOT_FOUND"):
        await client.log(job.id, attempt=2)
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await client.log(job.id, offset=-1)


async def test_log_is_sent_in_pieces(client: Client):
    """No message is larger than 256 KiB."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    log = bytes(range(256)) * 4096
    await agent.finish((await agent.assignment()).lease, log)

    pieces = [piece async for piece in client.read_log(job.id)]

    assert b"".join(piece.data for piece in pieces) == log
    assert max(len(piece.data) for piece in pieces) == 256 << 10


async def test_follow_sees_each_append_and_the_end(client: Client):
    """A follower that came first reads what is appended while it waits."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    follower = aiter(client.read_log(job.id, follow=True))
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    seen = b""
    async with asyncio.timeout(DEADLINE_S):
        for number in range(20):
            line = f"line {number}\n".encode()
            await log.send(len(seen), line)
            while not seen.endswith(line):
                seen += (await anext(follower)).data
        await agent.finish(lease, b"last\n", log_offset=len(seen), log_bytes=len(seen) + 5)
        rest = [piece async for piece in follower]

    assert b"".join(piece.data for piece in rest) == b"last\n"
    assert (rest[-1].end.length, rest[-1].end.complete) == (len(seen) + 5, True)
    assert log.call.cancel()


async def test_follow_goes_on_to_the_next_attempt(client: Client):
    """A lost attempt ends with what was stored of it; the log of the next one follows."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"half")
    follower = client.read_log(job.id, follow=True)

    second = await FakeAgent(client, incarnation="second").connect()
    await second.finish((await second.assignment()).lease, b"whole")

    async with asyncio.timeout(DEADLINE_S):
        pieces = [(piece.attempt, piece.data or piece.end.truncated) async for piece in follower]
    assert pieces == [(1, b"half"), (1, "agent_died"), (2, b"whole"), (2, "")]
    attempts = (await client.get(job.id)).attempts
    assert [(attempt.number, attempt.log_bytes) for attempt in attempts] == [(1, 4), (2, 5)]


async def test_log_cut_back_by_a_full_disk(client: Client):
    """Bytes that were under way when the agent-runner gave up what was not acknowledged count; so does its report, twice."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"known, and more")
    kept = sha256(b"known")

    for _ in range(2):
        await agent.finish(
            lease, b"", log_offset=5, log_bytes=5, log_sha256=kept, log_truncated="disk_full"
        )

    data, end = await client.log(job.id)
    assert (data, end.length, end.truncated) == (b"known, and more", 15, "disk_full")
    assert end.sha256 == sha256(data)
    assert (await client.get(job.id)).attempts[0].log_bytes == 15


async def test_longer_log_than_reported_is_refused(client: Client):
    """Nothing was cut off, so one of the two is wrong."""
    agent = await FakeAgent(client).connect()
    await client.submit("true")
    lease = (await agent.assignment()).lease
    log = await agent.append(lease)
    await log.send(0, b"known, and more")

    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.finish(lease, b"", log_offset=5, log_bytes=5)


async def test_lost_log_is_hashed_once(tmp_path, monkeypatch):
    """Nobody reported its hash; the first reader's work is kept, over restarts too, and read by everybody."""
    hashed = []
    sha256 = LogFiles.sha256

    def counted(self, job_id, attempt):
        hashed.append((job_id, threading.current_thread() is threading.main_thread()))
        return sha256(self, job_id, attempt)

    monkeypatch.setattr(LogFiles, "sha256", counted)
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        log = await agent.append((await agent.assignment()).lease)
        await log.send(0, b"half")
        await FakeAgent(client, incarnation="second").connect()
        digest = hashlib.sha256(b"half").hexdigest()
        for _ in range(2):
            assert (await client.log(job.id, attempt=1))[1].sha256 == digest
    async with serving(tmp_path) as client:
        end = (await client.log(job.id, attempt=1))[1]
        assert (end.sha256, end.length, end.truncated) == (digest, 4, "agent_died")
        attempt = (await client.get(job.id)).attempts[0]
        assert (attempt.log_sha256, attempt.log_bytes) == (digest, 4)

    assert hashed == [(job.id, False)]


async def test_lost_log_is_read_although_its_hash_cannot_be_kept(client: Client, monkeypatch):
    """A store that takes nothing now is no reason to keep a log back."""

    async def full(*_):
        raise StoreUnavailableError("the disk is full")

    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    await (await agent.append((await agent.assignment()).lease)).send(0, b"half")
    await FakeAgent(client, incarnation="second").connect()
    monkeypatch.setattr(client.store, "describe_log", full)

    data, end = await client.log(job.id, attempt=1)

    assert (data, end.sha256) == (b"half", hashlib.sha256(b"half").hexdigest())


async def test_event_loop_reads_and_hashes_no_cold_log(tmp_path, monkeypatch):
    """What may come from the disk is read in a thread; only what was just written is not."""
    on_loop = []

    def watched(name):
        call = getattr(LogFiles, name)

        def wrapper(self, job_id, attempt, *args):
            if threading.current_thread() is threading.main_thread():
                on_loop.append(name)
            return call(self, job_id, attempt, *args)

        monkeypatch.setattr(LogFiles, name, wrapper)

    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        lease = (await agent.assignment()).lease
        log = await agent.append(lease)
        await log.send(0, b"x" * 300_000)
    for name in ("read", "sha256"):
        watched(name)
    async with serving(tmp_path) as client:
        agent.client = client
        await agent.connect(lease)
        assert len((await client.log(job.id))[0]) == 300_000
        await agent.finish(lease, log_offset=300_000, log_bytes=300_000)
        data, end = await client.log(job.id)
    assert (end.sha256, end.length) == (hashlib.sha256(data).hexdigest(), 300_000)
    assert on_loop == []


async def test_log_of_a_job_that_never_ran(client: Client):
    """No attempt is an empty log; following it ends when the job is cancelled."""
    job = await client.submit("true")
    data, end = await client.log(job.id)
    assert (data, end.complete) == (b"", False)

    follower = client.read_log(job.id, follow=True)
    await client.cancel(job.id)

    async with asyncio.timeout(DEADLINE_S):
        assert [piece.end.complete async for piece in follower] == [True]


async def test_end_of_a_reader_ends_what_it_reads_from(client: Client, monkeypatch):
    """At once, not when the garbage collector finds it."""
    job = await client.submit("true")
    await (await FakeAgent(client).connect()).assignment()
    ended = []

    async def pieces(*_):
        try:
            while True:
                yield pb.ReadLogResponse()
        finally:
            ended.append(True)

    reader = LogReader(client.store, client.server._logs, client.server._signals)
    monkeypatch.setattr(reader, "_attempt", pieces)
    reading = reader.read(pb.ReadLogRequest(job_id=job.id))
    await anext(reading)

    await reading.aclose()

    assert ended == [True]


async def test_follower_that_leaves_is_forgotten(client: Client):
    """Nothing is kept for a client that has gone."""
    job = await client.submit("true")
    for _ in range(3):
        follower = client.read_log(job.id, follow=True)
        watch = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=-1))
        await watch.initial_metadata()
        follower.cancel()
        watch.cancel()

    async with asyncio.timeout(DEADLINE_S):
        while client.server._signals._waiters:
            await client.get(job.id)


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
    assert caught.trailers["acknowledged-offset"] == "10"
    for fields in ({"log_offset": 15, "log_bytes": 20}, {"log_offset": 10, "log_bytes": 20}):
        async with refused(Code.FAILED_PRECONDITION, "LOG_GAP") as caught:
            await agent.finish(lease, b"abcde"[: 20 - fields["log_offset"]], **fields)
    assert caught.trailers["acknowledged-offset"] == "15"
    assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING

    await agent.finish(lease, b"fghij", log_offset=15, log_bytes=20)

    assert (await client.log(job.id))[0] == b"0123456789abcdefghij"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_log_that_is_not_what_was_sent_is_sent_again(tmp_path):
    """The host of the server died and a page of the log came back empty: its length is right, its hash is not."""
    whole = bytes(range(256)) * 40
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        lease = (await agent.assignment()).lease
        await (await agent.append(lease)).send(0, whole)
    path = client.config.log_dir / f"{job.id}-1.log"
    path.write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
    async with serving(tmp_path) as client:
        agent.client = client
        await agent.connect(lease)
        report: dict[str, Any] = {"log_bytes": len(whole), "log_sha256": sha256(whole)}
        async with refused(Code.FAILED_PRECONDITION, "LOG_GAP") as caught:
            await agent.finish(lease, log_offset=len(whole), **report)
        assert caught.trailers["acknowledged-offset"] == "0"
        assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING
        assert len((await client.log(job.id))[0]) == len(whole)

        log = await agent.append(lease)
        assert log.stored == 0
        assert await log.send(0, whole) == len(whole)
        await agent.finish(lease, log_offset=len(whole), **report)

        data, end = await client.log(job.id)
        assert (data, end.sha256, end.truncated) == (whole, sha256(whole), "")


async def test_log_whose_hash_is_never_right_is_marked(client: Client, caplog):
    """The fault is on the other side: the result counts, the log is kept, and both say what they are."""
    agent = await FakeAgent(client).connect()
    job = await client.submit("true")
    lease = (await agent.assignment()).lease
    wrong = sha256(b"what it was")
    async with refused(Code.FAILED_PRECONDITION, "LOG_GAP"):
        await agent.finish(lease, b"what is left", log_sha256=wrong)
    for _ in range(2):
        await agent.finish(lease, b"what is left", log_sha256=wrong)

    ended = await client.get(job.id)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED
    assert ended.attempts[0].log_truncated == "damaged"
    data, end = await client.log(job.id)
    assert (data, end.sha256, end.truncated) == (b"what is left", wrong, "damaged")
    actions = [str(record.__dict__.get("action")) for record in caplog.records]
    assert [action for action in actions if action.startswith("log_")] == [
        "log_sent_again",
        "log_damaged",
    ]


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
