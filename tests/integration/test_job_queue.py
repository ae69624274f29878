"""Retries, delays, groups, dependencies and repeated jobs, over real sockets and in real time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from daemon.clock import SystemClock
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import (
    DEADLINE_S,
    Client,
    FakeAgent,
    next_events,
    refused,
    serving,
)

Code = grpc.StatusCode
FAILED: dict[str, Any] = {"exit_code": 1}
GROUP = job_pb2.ConcurrencySpec(group="deploy")


@pytest.fixture
async def timed_client(tmp_path):
    """A server whose time passes."""
    async with serving(tmp_path, clock=SystemClock()) as connected:
        yield connected


def in_seconds(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return moment


async def test_not_before_starts_on_time(timed_client: Client):
    """A free slot gets the job when its moment comes, neither before nor noticeably after; nobody asks for it."""
    agent = await FakeAgent(timed_client, slots=8).connect()
    moments = (0.8, 0.3, 1.0, 1.2, 1.4)
    jobs = [await timed_client.submit(not_before_time=in_seconds(moment)) for moment in moments]
    ready_s = {job.id: job.ready_time.ToNanoseconds() / 1e9 for job in jobs}
    late_s = []

    assert {job.state for job in jobs} == {job_pb2.JOB_STATE_PENDING}
    while ready_s:
        job_id = (await agent.assignment()).lease.job_id
        late_s.append(time.time() - ready_s.pop(job_id))
        assert not (await timed_client.get(job_id)).HasField("ready_time")

    assert min(late_s) >= 0
    # Most of them: this process may be kept waiting for a processor at one moment or another.
    assert sorted(late_s)[2] < 0.25, late_s


async def test_not_before_outlives_the_server(tmp_path):
    """A server that starts after the moment gives the job out at once."""
    async with serving(tmp_path, clock=SystemClock()) as first:
        job = await first.submit(not_before_time=in_seconds(0.2))
    async with serving(tmp_path, clock=SystemClock()) as second:
        agent = await FakeAgent(second).connect()
        assert (await agent.assignment()).lease.job_id == job.id


async def test_retry_with_backoff(timed_client: Client):
    """The second attempt comes after the backoff; the job shows both."""
    agent = await FakeAgent(timed_client).connect()
    policy = job_pb2.RetryPolicy(max=1, backoff=Duration(nanos=300_000_000))
    job = await timed_client.submit(retries=policy)
    first = await agent.assignment()
    failed_at = time.monotonic()
    await agent.finish(first.lease, b"one", **FAILED)
    waiting = await timed_client.get(job.id)
    assert waiting.state == job_pb2.JOB_STATE_PENDING
    assert waiting.HasField("ready_time")

    second = await agent.assignment()

    assert time.monotonic() - failed_at >= 0.3
    await agent.finish(second.lease, b"two")
    done = await timed_client.get(job.id)
    assert (done.state, done.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 2)
    assert [(one.state, one.exit_code) for one in done.attempts] == [
        (job_pb2.JOB_STATE_FAILED, 1),
        (job_pb2.JOB_STATE_SUCCEEDED, 0),
    ]
    assert [(await timed_client.log(job.id, attempt=n))[0] for n in (1, 2)] == [b"one", b"two"]


async def test_retry_follows_in_a_log(client: Client):
    """A follower of the newest attempt reads on in the next one."""
    agent = await FakeAgent(client).connect()
    job = await client.submit(retries=job_pb2.RetryPolicy(max=1))
    reading = asyncio.create_task(client.log(job.id, follow=True))
    for text in (b"one", b"two"):
        await agent.finish((await agent.assignment()).lease, text, **FAILED)

    async with asyncio.timeout(DEADLINE_S):
        log, _ = await reading
    assert log == b"onetwo"


async def test_group_wakes_the_next(client: Client):
    """The end of a job of a group brings the next one to another agent-runner, which nothing else would wake."""
    first = await client.submit(concurrency=GROUP)
    second = await client.submit(concurrency=GROUP)
    third = await client.submit()
    busy = await FakeAgent(client, slots=1).connect()
    held = await busy.assignment()
    assert held.lease.job_id == first.id
    idle = await FakeAgent(client, name="idle").connect()
    assert (await idle.assignment()).lease.job_id == third.id
    await busy.say(drain=True)
    await client.get(first.id)

    await busy.finish(held.lease, **FAILED)

    assert (await idle.assignment()).lease.job_id == second.id


async def test_dependency_wakes_its_dependents(client: Client):
    """Success queues, and whoever watches the dependent job hears of it; failure fails."""
    agent = await FakeAgent(client, slots=1).connect()
    root = await client.submit()
    child = await client.submit(depends_on=[root.id])
    other = await client.submit(depends_on=[child.id])
    assert child.state == job_pb2.JOB_STATE_BLOCKED
    watch = client.jobs.WatchJobs(
        pb.WatchJobsRequest(job_ids=[child.id, other.id], after_event_id=-1)
    )
    await watch.initial_metadata()

    await agent.finish((await agent.assignment()).lease)
    assignment = await agent.assignment()
    assert assignment.lease.job_id == child.id
    queued, running = await next_events(watch, 2)
    assert (queued.state, running.state) == (
        job_pb2.JOB_STATE_PENDING,
        job_pb2.JOB_STATE_RUNNING,
    )
    await agent.finish(assignment.lease, **FAILED)

    _, last = await next_events(watch, 2)
    assert (last.job_id, last.end_reason) == (other.id, job_pb2.END_REASON_DEPENDENCY_FAILED)
    assert child.id in (await client.get(other.id)).message


async def test_unknown_dependency_is_refused(client: Client):
    """The error names the field and the id."""
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_SPEC") as caught:
        await client.submit(depends_on=["nobody"])
    assert "depends_on.0" in caught.text
    assert "nobody" in caught.text


async def test_specification_comes_back(client: Client):
    """Every field of the queue is stored and told."""
    spec = job_pb2.JobSpec(
        argv=["true"],
        retries=job_pb2.RetryPolicy(
            max=3,
            backoff=Duration(seconds=2),
            exit_codes=[75],
            end_reasons=[job_pb2.END_REASON_TIMED_OUT],
        ),
        concurrency=job_pb2.ConcurrencySpec(group="g", limit=4),
        not_before_time=Timestamp(seconds=4_000_000_000, nanos=5000),
        max_attempts=7,
    )
    response = await client.jobs.SubmitJob(pb.SubmitJobRequest(spec=spec))
    stored = (await client.get(response.job.id)).spec
    for name in ("retries", "concurrency", "not_before_time", "max_attempts"):
        assert getattr(stored, name) == getattr(spec, name)
    assert (await client.get(response.job.id)).ready_time == spec.not_before_time


async def retry(client: Client, job_id: str, request_id: str = "") -> job_pb2.Job:
    request = pb.RetryJobRequest(job_id=job_id, request_id=request_id)
    response: pb.RetryJobResponse = await client.jobs.RetryJob(request)
    return response.job


async def test_retry_makes_a_new_job(client: Client):
    """It has the same specification and names the old one; repeating the call returns the same one."""
    agent = await FakeAgent(client).connect()
    old = await client.submit("false", labels={}, env={"A": "b"})
    async with refused(Code.FAILED_PRECONDITION, "JOB_NOT_ENDED"):
        await retry(client, old.id)
    await agent.finish((await agent.assignment()).lease, **FAILED)

    new = await retry(client, old.id, "again")

    assert (new.retry_of, new.spec, new.state) == (old.id, old.spec, job_pb2.JOB_STATE_PENDING)
    assert new.id != old.id
    assert (await agent.assignment()).lease.job_id == new.id
    assert (await retry(client, old.id, "again")).id == new.id
    async with refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await client.submit("false", request_id="again")
    async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND"):
        await retry(client, "nobody")


async def test_retry_follows_retried_dependencies(client: Client):
    """A dependency that failed must be retried first; then the new job waits for the new one."""
    build = await client.submit()
    deploy = await client.submit(depends_on=[build.id])
    await client.cancel(build.id)
    async with refused(Code.FAILED_PRECONDITION, "DEPENDENCY_FAILED") as caught:
        await retry(client, deploy.id)
    assert build.id in caught.text
    built = await retry(client, build.id)

    again = await retry(client, deploy.id)

    assert list(again.spec.depends_on) == [built.id]
    assert again.state == job_pb2.JOB_STATE_BLOCKED


async def test_repeated_retry_is_answered_whatever_happened_since(client: Client):
    """The old job could not be retried any more: what was retried in place of its dependency has failed too."""
    build = await client.submit()
    deploy = await client.submit(depends_on=[build.id])
    await client.cancel(build.id)
    built = await retry(client, build.id)
    again = await retry(client, deploy.id, "deploy again")
    await client.cancel(built.id)

    assert (await retry(client, deploy.id, "deploy again")).id == again.id
    async with refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await retry(client, build.id, "deploy again")


async def test_delayed_job_file_is_idempotent(timed_client: Client):
    """The delay counts from the first call; the same file with the same request id is the same job."""
    file = pb.JobFile(name="a.yaml", content=b"job_command: 'true'\nnot_before: 1h\n", base_dir="/")
    request = pb.SubmitJobRequest(job_file=file, request_id="r")
    first = (await timed_client.jobs.SubmitJob(request)).job

    assert (await timed_client.jobs.SubmitJob(request)).job == first
    file.content = b"job_command: 'true'\nnot_before: 2h\n"
    async with refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await timed_client.jobs.SubmitJob(pb.SubmitJobRequest(job_file=file, request_id="r"))


async def test_list_by_labels_and_time(client: Client):
    """Filters join with the states and with pages."""
    ids = []
    for number in range(6):
        client.clock.advance(10)
        labels = {"team": "a", "n": str(number % 2)} if number != 3 else {}
        ids.append((await client.submit(labels=labels)).id)
    since = (await client.get(ids[2])).create_time
    await client.cancel(ids[5])

    async def listed(**fields: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            request = pb.ListJobsRequest(page_size=2, page_token=token, **fields)
            page = await client.jobs.ListJobs(request)
            found += (ids[ids.index(job.id)] for job in page.jobs)
            token = page.next_page_token
            if not token:
                return found

    def newest(*numbers: int) -> list[str]:
        return [ids[number] for number in numbers]

    assert await listed(labels={"team": "a"}) == newest(5, 4, 2, 1, 0)
    assert await listed(labels={"team": "a", "n": "1"}) == newest(5, 1)
    assert await listed(labels={"team": "b"}) == []
    assert await listed(since_time=since) == newest(5, 4, 3, 2)
    assert await listed(labels={"n": "0"}, since_time=since) == newest(4, 2)
    assert await listed(labels={"team": "a"}, states=[job_pb2.JOB_STATE_PENDING]) == newest(
        4, 2, 1, 0
    )
