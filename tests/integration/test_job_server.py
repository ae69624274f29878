"""The gate of every call, and how the server starts and stops, over real sockets."""

from __future__ import annotations

import asyncio
import stat
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from daemon.errors import InvalidConfigError, StartFailedError
from daemon.server.app import JobServer
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
    stub: Any = rpc.JobServiceStub(client.channel)
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
    stub: Any = rpc.JobServiceStub(client.channel)

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
        "runner.v1.TokenService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_unknown_method_is_unimplemented(client: Client):
    """A newer client learns that this server is older."""
    call: Any = client.channel.unary_unary("/runner.v1.JobService/NobodyKnows")
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

    assert caught.text == "internal error; see job-server.log"
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.action for record in failures] == ["call_failed"]


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
    config = server_config(tmp_path, listen="192.0.2.1:50051", insecure=True)
    with pytest.raises(StartFailedError, match=r"cannot listen on 192\.0\.2\.1:50051: (?!.*taken)"):
        await JobServer(config, TOKEN).start()


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


async def test_the_next_call_is_waited_for_once(client: Client):
    """Not once for each method, or every call costs as much as there are methods."""
    await client.submit("true")

    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert sum(name.startswith("AioServer._request") for name in names) == 1
