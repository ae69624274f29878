"""Submit, get, list, cancel and watch over real sockets."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import (
    AUTH,
    Client,
    FakeAgent,
    next_events,
    refused,
    serving,
)

Code = grpc.StatusCode


async def test_submit_returns_the_job_with_defaults_written_out(client: Client):
    """What is not said is filled in once, by the server."""
    job = await client.submit("echo", "hi")

    assert (job.state, job.attempt) == (job_pb2.JOB_STATE_PENDING, 0)
    assert (job.spec.name, job.spec.code_dir, job.spec.timeout.seconds) == ("job", "/job/src", 3600)
    assert (len(job.id), job.id.lower()) == (26, job.id)
    assert await client.get(job.id) == job


async def test_submit_is_idempotent_by_request_id(client: Client):
    """A repeat returns the job; the same id with another payload is refused."""
    first = await client.submit("true", request_id="r 1")
    again = await client.submit("true", request_id="r 1", name="job")
    assert again == first

    async with refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await client.submit("false", request_id="r 1")
    assert len((await client.jobs.ListJobs(pb.ListJobsRequest())).jobs) == 1


@pytest.mark.parametrize("request_id", ["x" * 129, "a\nb", "ü"])
async def test_malformed_request_id_is_refused(client: Client, request_id):
    """1 to 128 printable ASCII characters."""
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await client.submit("true", request_id=request_id)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (job_pb2.JobSpec(), "job_command"),
        (job_pb2.JobSpec(argv=["/bin/sh", "-c", " "]), "job_command"),
        (job_pb2.JobSpec(argv=["echo", "a\0b"]), "job_command"),
        (job_pb2.JobSpec(argv=["true"], env={"NOT A NAME": "x"}), "env"),
        (job_pb2.JobSpec(argv=["true"], env={"A": "\0"}), "env.A"),
        (job_pb2.JobSpec(argv=["true"], priority=2_000_000), "priority"),
        (job_pb2.JobSpec(argv=["true"], sandbox=job_pb2.SandboxSpec(min="none")), "sandbox.min"),
        (job_pb2.JobSpec(argv=["true"], env={"A" * 254: "x" * 200_000}), "env"),
        (job_pb2.JobSpec(argv=["true", *["x" * 100_000] * 12]), "job"),
    ],
)
async def test_bad_specification_is_refused_by_field(client: Client, spec, field):
    """The message names the field, in a batch the request too, and nothing is accepted."""
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_SPEC") as caught:
        await client.jobs.SubmitJob(pb.SubmitJobRequest(spec=spec))
    assert caught.text.startswith(field)

    good = pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=["true"]))
    batch = pb.SubmitJobsRequest(requests=[good, pb.SubmitJobRequest(spec=spec)])
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_SPEC") as caught:
        await client.jobs.SubmitJobs(batch)
    assert caught.text.startswith(f"requests[1].{field}")
    assert not (await client.jobs.ListJobs(pb.ListJobsRequest())).jobs


async def test_request_without_a_job_is_refused(client: Client):
    """Neither form is an error of the request, not of a specification."""
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await client.jobs.SubmitJob(pb.SubmitJobRequest())
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await client.jobs.SubmitJobs(pb.SubmitJobsRequest())


async def test_job_file_is_read_by_the_server(client: Client):
    """A file and the same job in fields are the same payload."""
    file = pb.JobFile(name="hello.yaml", content=b"job_command: [echo, hi]\n", base_dir="/")
    request = pb.SubmitJobRequest(job_file=file, request_id="r")

    job = (await client.jobs.SubmitJob(request)).job

    assert [*job.spec.argv] == ["echo", "hi"]
    again = await client.submit("echo", "hi", name=job.spec.name, request_id="r")
    assert again.id == job.id


async def test_bad_job_file_names_the_place(client: Client):
    """File, line and column reach the client."""
    file = pb.JobFile(name="bad.yaml", content=b"job_comand: x\n", base_dir="/")
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_FILE") as caught:
        await client.jobs.SubmitJob(pb.SubmitJobRequest(job_file=file))
    assert caught.text.startswith("bad.yaml:1:1")


async def test_batch_keeps_the_order(client: Client):
    """The answer has one job per request, in their order, and the list shows the newest first."""
    specs = [job_pb2.JobSpec(argv=["echo", str(number)]) for number in range(50)]
    requests = [pb.SubmitJobRequest(spec=spec) for spec in specs]

    jobs = (await client.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=requests))).jobs

    assert [job.spec.argv[1] for job in jobs] == [str(number) for number in range(50)]
    listed = (await client.jobs.ListJobs(pb.ListJobsRequest())).jobs
    assert [job.id for job in listed] == [job.id for job in reversed(jobs)]


async def test_full_queue_refuses_all_of_a_batch(tmp_path):
    """The bound holds for the whole batch, and room that a job leaves can be used again."""
    async with serving(tmp_path, max_pending=3) as client:
        request = pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=["true"]))
        async with refused(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"):
            await client.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=[request] * 4))
        jobs = (await client.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=[request] * 3))).jobs
        async with refused(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"):
            await client.submit("true")

        await client.cancel(jobs[0].id)

        await client.submit("true")


async def test_repeated_submit_needs_no_place(tmp_path):
    """A client that has lost the answer gets its job, however full the queue is, and takes nobody's place."""
    async with serving(tmp_path, max_pending=3) as client:
        first = await client.submit("true", request_id="r")
        for _ in range(5):
            assert await client.submit("true", request_id="r") == first
        await client.submit("true", request_id="s")
        await client.submit("true")
        assert await client.submit("true", request_id="r") == first
        async with refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
            await client.submit("false", request_id="r")
        spec = job_pb2.JobSpec(argv=["true"])
        batch = [pb.SubmitJobRequest(spec=spec, request_id=name) for name in ("r", "s", "r")]
        jobs = (await client.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=batch))).jobs
        assert [job.id for job in jobs] == [first.id, jobs[1].id, first.id]
        batch.append(pb.SubmitJobRequest(spec=spec, request_id="new"))
        async with refused(Code.RESOURCE_EXHAUSTED, "QUEUE_FULL"):
            await client.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=batch))

        await client.cancel(first.id)

        batch.append(pb.SubmitJobRequest(spec=spec, request_id="new"))
        jobs = (await client.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=batch))).jobs
        assert len({job.id for job in jobs}) == 3


async def test_unknown_job_is_not_found(client: Client):
    """Whatever the call, and whatever the id looks like."""
    for job_id in ("", "0" * 26, "../../etc/passwd"):
        async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND"):
            await client.get(job_id)
        async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND"):
            await client.cancel(job_id)
        async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND"):
            await client.log(job_id)


async def test_list_pages_and_filters(client: Client):
    """Pages join without gap or repeat; a state keeps only its jobs."""
    jobs = [await client.submit("echo", str(number)) for number in range(5)]
    await client.cancel(jobs[2].id)

    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListJobsRequest(page_size=2, page_token=token)
        page = await client.jobs.ListJobs(request)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert seen == [job.id for job in reversed(jobs)]

    cancelled = pb.ListJobsRequest(states=[job_pb2.JOB_STATE_CANCELLED])
    assert [job.id for job in (await client.jobs.ListJobs(cancelled)).jobs] == [jobs[2].id]


@pytest.mark.parametrize(
    "request_",
    [
        pb.ListJobsRequest(page_size=-1),
        pb.ListJobsRequest(page_token="x"),
        pb.ListJobsRequest.FromString(b"\x18\x63"),
    ],
)
async def test_malformed_list_request_is_refused(client: Client, request_):
    """One clear error each."""
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await client.jobs.ListJobs(request_)


async def test_list_of_large_jobs_fits_into_a_message(client: Client):
    """A page gets shorter where the jobs are large, and the rest follows."""
    for _ in range(6):
        await client.submit("echo", *["x" * 100_000] * 9)

    count = 0
    token = ""
    while True:
        page = await client.jobs.ListJobs(pb.ListJobsRequest(page_token=token))
        count += len(page.jobs)
        token = page.next_page_token
        if not token:
            break
    assert count == 6


async def test_cancel_ends_a_queued_job_once(client: Client):
    """A queued job is cancelled at once; a second cancel says that it has ended."""
    job = await client.submit("true")

    cancelled = await client.cancel(job.id)

    assert cancelled.state == job_pb2.JOB_STATE_CANCELLED
    async with refused(Code.FAILED_PRECONDITION, "JOB_NOT_CANCELLABLE"):
        await client.cancel(job.id)


async def test_watch_tells_each_change_and_can_be_resumed(client: Client):
    """All changes of a job come in order, and again after any one of them."""
    agent = await FakeAgent(client).connect()
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=-1))
    await watch.initial_metadata()
    job = await client.submit("true")
    assignment = await agent.assignment()
    await agent.finish(assignment.lease)

    events = await next_events(watch, 3)
    watch.cancel()

    assert [event.job_id for event in events] == [job.id] * 3
    assert [event.state for event in events] == [
        job_pb2.JOB_STATE_PENDING,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_SUCCEEDED,
    ]
    assert events[2].exit_code == 0
    again = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=events[0].id))
    assert await next_events(again, 2) == events[1:]
    again.cancel()


async def test_watch_of_too_many_jobs_says_what_to_do(client: Client):
    """The number of named jobs is bounded; all jobs are not."""
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=["x"] * 1001))
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST") as caught:
        await watch.read()
    assert "watch all instead" in caught.text


async def test_watch_keeps_only_the_jobs_asked_for(client: Client):
    """Changes of other jobs do not come."""
    first, second = await client.submit("true"), await client.submit("true")
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[second.id]))
    await client.cancel(first.id)
    await client.cancel(second.id)

    events = await next_events(watch, 2)
    watch.cancel()

    assert {event.job_id for event in events} == {second.id}


async def test_watch_of_an_unknown_job_is_refused(client: Client):
    """Nothing would ever come: better said than waited for."""
    job = await client.submit("true")
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[job.id, "0" * 26]))
    async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND") as caught:
        await watch.read()
    assert "0" * 26 in caught.text


async def test_thousands_of_calls_at_once_are_all_answered(client: Client):
    """gRPC cancels what waits beyond its bound; ours is far above what clients do."""
    job = await client.submit("true")
    found = await asyncio.gather(*(client.get(job.id) for _ in range(4000)))
    assert {one.id for one in found} == {job.id}


@pytest.mark.parametrize("shape", ["unary_unary", "unary_stream", "stream_stream"])
async def test_bytes_that_are_no_message_are_a_clear_error(client: Client, shape: str):
    """Of a newer or a broken client, in every shape of a call."""
    method = {
        "unary_unary": "/runner.v1.JobService/GetJob",
        "unary_stream": "/runner.v1.JobService/WatchJobs",
        "stream_stream": "/runner.v1.AgentService/Work",
    }[shape]
    call = getattr(client.channel, shape)(method)
    broken = b"\x0a\xff\xff"
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST") as caught:
        if shape == "unary_unary":
            await call(broken, metadata=AUTH)
        elif shape == "unary_stream":
            await call(broken, metadata=AUTH).read()
        else:
            stream = call(metadata=AUTH)
            await stream.write(broken)
            await stream.read()
    assert "not a message" in caught.text
