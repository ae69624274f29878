"""The client's half of the API over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import stat

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from daemon.errors import InvalidConfigError, StartFailedError
from daemon.server.app import JobServer
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from runner.v1 import job_service_pb2_grpc as rpc
from tests.integration.grpc_server import (
    AUTH,
    DEADLINE_S,
    TOKEN,
    Client,
    FakeAgent,
    refused,
    server_config,
    serving,
)

Code = grpc.StatusCode


@pytest.fixture
async def client(tmp_path):
    async with serving(tmp_path) as connected:
        yield connected


# --- the gate ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", TOKEN),), "TOKEN_MISSING"),
        ((("authorization", "Bearer wrong"),), "TOKEN_REJECTED"),
        ((("authorization", "Bearer "),), "TOKEN_REJECTED"),
    ],
)
async def test_call_without_the_token_is_refused(client: Client, metadata, why):
    """Every kind of call needs the token, and reflection too."""
    stub = rpc.JobServiceStub(client.channel)
    async with refused(Code.UNAUTHENTICATED, why):
        await stub.GetJob(pb.GetJobRequest(job_id="x"), metadata=metadata)
    async with refused(Code.UNAUTHENTICATED, why):
        async for _ in stub.WatchJobs(pb.WatchJobsRequest(), metadata=metadata):
            pass
    reflection = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    async with refused(Code.UNAUTHENTICATED, why):
        await reflection.ServerReflectionInfo(metadata=metadata).read()


async def test_scheme_of_the_token_is_case_insensitive(client: Client):
    """RFC 9110 says so, and clients differ."""
    stub = rpc.JobServiceStub(client.channel)

    response = await stub.ListJobs(
        pb.ListJobsRequest(), metadata=(("authorization", f"bearer {TOKEN}"),)
    )

    assert not response.jobs


async def test_health_needs_no_token_and_names_the_services(client: Client):
    """A supervisor can check without a secret, on the socket and on TCP."""
    async with grpc.aio.insecure_channel(client.server.listen) as tcp:
        for channel in (client.channel, tcp):
            stub = health_pb2_grpc.HealthStub(channel)
            for service in ("", "runner.v1.JobService", "runner.v1.AgentService"):
                response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
                assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(client: Client):
    """A generic client finds everything."""
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    call = stub.ServerReflectionInfo(metadata=AUTH)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    response = await call.read()
    call.cancel()

    names = {service.name for service in response.list_services_response.service}
    assert names == {
        "runner.v1.JobService",
        "runner.v1.AgentService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_unknown_method_is_unimplemented(client: Client):
    """A newer client learns that this server is older."""
    call = client.channel.unary_unary("/runner.v1.JobService/RetryJob")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", metadata=AUTH)
    assert caught.value.code() is Code.UNIMPLEMENTED


async def test_message_over_the_limit_is_refused(client: Client):
    """A message of more than 4 MiB never reaches a handler, and the server lives on."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.submit("echo", "x" * (5 << 20))
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    await client.submit("true")


async def test_defect_is_internal_and_logged_once(client: Client, monkeypatch, caplog):
    """A client sees no trace of a defect; the log has it."""

    async def broken(job_id):
        raise ZeroDivisionError("a detail that stays here")

    monkeypatch.setattr(client.store, "get", broken)
    async with refused(Code.INTERNAL, "INTERNAL") as caught:
        await client.get("x")

    assert caught[0].details() == "internal error; see job-server.log"
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.action for record in failures] == ["call_failed"]


# --- submit -----------------------------------------------------------------------------------


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
    assert caught[0].details().startswith(field)

    good = pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=["true"]))
    batch = pb.SubmitJobsRequest(requests=[good, pb.SubmitJobRequest(spec=spec)])
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_SPEC") as caught:
        await client.jobs.SubmitJobs(batch)
    assert caught[0].details().startswith(f"requests[1].{field}")
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
    assert caught[0].details().startswith("bad.yaml:1:1")


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


# --- get, list, cancel ------------------------------------------------------------------------


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
        pb.ListJobsRequest(states=[99]),
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


# --- watch ------------------------------------------------------------------------------------


async def test_watch_tells_each_change_and_can_be_resumed(client: Client):
    """All changes of a job come in order, and again after any one of them."""
    agent = await FakeAgent(client).connect()
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=-1))
    await watch.initial_metadata()
    job = await client.submit("true")
    assignment = await agent.assignment()
    await agent.finish(assignment.lease)

    async with asyncio.timeout(DEADLINE_S):
        events = [(await watch.read()).event for _ in range(3)]
    watch.cancel()

    assert [event.job_id for event in events] == [job.id] * 3
    assert [event.state for event in events] == [
        job_pb2.JOB_STATE_PENDING,
        job_pb2.JOB_STATE_RUNNING,
        job_pb2.JOB_STATE_SUCCEEDED,
    ]
    assert events[2].exit_code == 0
    again = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=events[0].id))
    assert [(await again.read()).event for _ in range(2)] == events[1:]
    again.cancel()


async def test_watch_keeps_only_the_jobs_asked_for(client: Client):
    """Changes of other jobs do not come."""
    first, second = await client.submit("true"), await client.submit("true")
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[second.id]))
    await client.cancel(first.id)
    await client.cancel(second.id)

    async with asyncio.timeout(DEADLINE_S):
        events = [(await watch.read()).event for _ in range(2)]
    watch.cancel()

    assert {event.job_id for event in events} == {second.id}


# --- logs -------------------------------------------------------------------------------------


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


async def test_log_of_a_job_that_never_ran(client: Client):
    """No attempt is an empty log; following it ends when the job is cancelled."""
    job = await client.submit("true")
    data, end = await client.log(job.id)
    assert (data, end.complete) == (b"", False)

    follower = client.read_log(job.id, follow=True)
    await client.cancel(job.id)

    async with asyncio.timeout(DEADLINE_S):
        assert [piece.end.complete async for piece in follower] == [True]


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


# --- start and stop ---------------------------------------------------------------------------


async def test_second_server_on_the_port_is_refused(client: Client, tmp_path):
    """One clear line, and the first server goes on."""
    config = server_config(tmp_path / "other", listen=client.server.listen)
    (tmp_path / "other").mkdir()
    with pytest.raises(StartFailedError) as caught:
        await JobServer(config, TOKEN).start()

    assert str(caught.value) == (
        f"cannot listen on {client.server.listen}: the port is taken; "
        "stop the other program or choose --listen"
    )
    assert not config.socket.exists()
    await client.submit("true")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:70000", ":1", "127.0.0.1:x"])
async def test_malformed_listen_is_refused(tmp_path, listen):
    """The value is named."""
    with pytest.raises(InvalidConfigError, match="--listen"):
        await JobServer(server_config(tmp_path, listen=listen), TOKEN).start()


async def test_foreign_address_is_refused(tmp_path):
    """An address of another host is no taken port."""
    with pytest.raises(StartFailedError, match="cannot listen on 192.0.2.1:50051: (?!.*taken)"):
        await JobServer(server_config(tmp_path, listen="192.0.2.1:50051"), TOKEN).start()


async def test_socket_is_private_and_a_left_over_one_is_replaced(tmp_path):
    """0600 in a 0700 folder; a socket file of a server that was killed does not matter."""
    socket = tmp_path / "run" / "s"
    async with serving(tmp_path, listen="none") as client:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert client.server.listen == "none"
        left_over = tmp_path / "run" / "left over"
        left_over.hardlink_to(socket)
    left_over.rename(socket)
    async with serving(tmp_path) as client:
        await client.submit("true")


async def test_stop_ends_streams_with_shutting_down(tmp_path):
    """Followers, watchers and agent-runners learn that they may come back; health says so first."""
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        await agent.assignment()
        follower = client.read_log(job.id, follow=True)
        watch = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=-1))
        await watch.initial_metadata()

        await client.server.stop(DEADLINE_S)

        for call in (follower, watch, agent.call):
            async with refused(Code.UNAVAILABLE, "SHUTTING_DOWN"):
                await call.read()


async def test_jobs_survive_a_restart(tmp_path):
    """What was acknowledged is there again, with its log."""
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        await agent.finish((await agent.assignment()).lease, b"log")
        before = await client.get(job.id)
        waiting = await client.submit("false")
    async with serving(tmp_path) as client:
        assert await client.get(job.id) == before
        assert (await client.log(job.id))[0] == b"log"
        agent = await FakeAgent(client, incarnation="second").connect()
        assert (await agent.assignment()).lease.job_id == waiting.id
