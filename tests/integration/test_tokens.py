"""Issued tokens: what each role may call, how one ends, and what it costs to know them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from daemon.clock import SystemClock
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import agent_service_pb2_grpc as agent_rpc
from runner.v1 import job_service_pb2 as pb
from runner.v1 import job_service_pb2_grpc as rpc
from runner.v1 import token_service_pb2 as token_pb
from runner.v1 import token_service_pb2_grpc as token_rpc
from tests.integration.grpc_server import AUTH, DEADLINE_S, Client, refused, serving

Code = grpc.StatusCode
ROLES = {"client": 1, "agent": 2, "admin": 3}


@dataclass
class Issued:
    """A token and the calls that are made with it."""

    client: Client
    token: token_pb.Token
    secret: str

    @property
    def auth(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.secret}"),)

    async def list_jobs(self) -> pb.ListJobsResponse:
        stub: Any = rpc.JobServiceStub(self.client.channel)
        response: pb.ListJobsResponse = await stub.ListJobs(
            pb.ListJobsRequest(), metadata=self.auth
        )
        return response

    async def register(self) -> None:
        stub: Any = agent_rpc.AgentServiceStub(self.client.channel)
        identity = agent_pb.AgentIdentity(name="agent", incarnation="1")
        request = agent_pb.RegisterAgentRequest(agent=identity, slots=1)
        await stub.RegisterAgent(request, metadata=self.auth)

    async def list_tokens(self) -> None:
        await tokens(self.client).ListTokens(token_pb.ListTokensRequest(), metadata=self.auth)


def tokens(client: Client) -> Any:
    return token_rpc.TokenServiceStub(client.channel)


async def issue(
    client: Client, role: str, *projects: str, expire_us: int | None = None, auth: Any = AUTH
) -> Issued:
    """Have a token made."""
    request = token_pb.CreateTokenRequest(role=ROLES[role], projects=projects)  # type: ignore[arg-type]
    if expire_us is not None:
        request.expire_time.CopyFrom(Timestamp(seconds=expire_us // 10**6))
        request.expire_time.nanos = expire_us % 10**6 * 1000
    made = await tokens(client).CreateToken(request, metadata=auth)
    return Issued(client, made.token, made.secret)


async def revoke(client: Client, issued: Issued) -> None:
    request = token_pb.RevokeTokenRequest(token_id=issued.token.id)
    await tokens(client).RevokeToken(request, metadata=AUTH)


async def listed(client: Client) -> dict[str, token_pb.Token]:
    response = await tokens(client).ListTokens(token_pb.ListTokensRequest(), metadata=AUTH)
    return {token.id: token for token in response.tokens}


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("client", {"jobs"}), ("agent", {"agents"}), ("admin", {"jobs", "agents", "tokens"})],
)
async def test_a_role_may_call_its_services_only(client: Client, role, allowed):
    """Everything else is PERMISSION_DENIED, before a request is read."""
    issued = await issue(client, role, *([] if role == "admin" else ["one"]))
    for service, call in (
        ("jobs", issued.list_jobs),
        ("agents", issued.register),
        ("tokens", issued.list_tokens),
    ):
        if service in allowed:
            await call()
        else:
            async with refused(Code.PERMISSION_DENIED, "ROLE_NOT_ALLOWED") as refusal:
                await call()
            assert issued.secret not in refusal.text


async def test_only_hashes_are_stored_and_nothing_is_logged(tmp_path, caplog):
    """The secret is in the answer that makes it, and in no file and no log."""
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path) as client:
        issued = await issue(client, "client", "one")
        await issued.list_jobs()
        await revoke(client, issued)
        async with refused(Code.UNAUTHENTICATED, "TOKEN_REJECTED") as refusal:
            await issued.list_jobs()
        assert issued.secret not in refusal.text
        assert issued.secret not in str(await listed(client))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(issued.token.id.encode() in path.read_bytes() for path in files)
    assert not any(issued.secret.encode() in path.read_bytes() for path in files)
    assert issued.secret not in caplog.text
    assert len(issued.secret) > 43  # 256 bits in base64url


async def test_a_token_that_counts_no_more_is_told_like_an_unknown_one(tmp_path):
    """Unknown, revoked and expired tokens get the same words: they say nothing of what there is."""
    clock = SystemClock()
    async with serving(tmp_path, clock) as client:
        expiring = await issue(client, "client", "one", expire_us=clock.now_us() + 1_000_000)
        revoked = await issue(client, "client", "one")
        await revoke(client, revoked)
        async with asyncio.timeout(DEADLINE_S):
            while clock.now_us() <= expiring.token.expire_time.ToMicroseconds():
                await listed(client)
        texts = set()
        for secret in (expiring.secret, revoked.secret, "unknown", "", "x" * 4000):
            async with refused(Code.UNAUTHENTICATED, "TOKEN_REJECTED") as refusal:
                await Issued(client, revoked.token, secret).list_jobs()
            texts.add(refusal.text)
        assert len(texts) == 1


async def test_tokens_are_known_after_a_restart(tmp_path):
    """Good ones and revoked ones."""
    async with serving(tmp_path) as client:
        kept, gone = await issue(client, "client", "one"), await issue(client, "agent", "one")
        await revoke(client, gone)
    async with serving(tmp_path) as client:
        await Issued(client, kept.token, kept.secret).list_jobs()
        async with refused(Code.UNAUTHENTICATED, "TOKEN_REJECTED"):
            await Issued(client, gone.token, gone.secret).register()


async def open_streams(client: Client, issued: Issued, agent: Issued) -> list[Any]:
    """Return a WatchJobs, a following ReadLog and a Work stream that wait for something to happen."""
    jobs: Any = rpc.JobServiceStub(client.channel)
    request = pb.SubmitJobRequest()
    request.spec.argv.append("true")
    job = (await jobs.SubmitJob(request, metadata=issued.auth)).job
    watch = jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=-1), metadata=issued.auth)
    await watch.initial_metadata()
    log = jobs.ReadLog(pb.ReadLogRequest(job_id=job.id, follow=True), metadata=issued.auth)
    agents: Any = agent_rpc.AgentServiceStub(client.channel)
    await agent.register()
    work = agents.Work(metadata=agent.auth)
    identity = agent_pb.AgentIdentity(name="agent", incarnation="1")
    await work.write(agent_pb.WorkRequest(hello=agent_pb.WorkHello(agent=identity, draining=True)))
    assert (await work.read()).HasField("welcome")
    return [watch, log, work]


async def assert_ended(stream: Any) -> None:
    """Expect a stream to end because its token has."""
    async with asyncio.timeout(DEADLINE_S), refused(Code.UNAUTHENTICATED, "TOKEN_REJECTED"):
        while await stream.read() is not grpc.aio.EOF:
            pass


async def test_a_revocation_ends_open_streams(client: Client):
    """Watchers, readers and agent-runners at once; the streams of others go on."""
    ended = await issue(client, "client", "one"), await issue(client, "agent", "one")
    other = await issue(client, "client", "one"), await issue(client, "agent", "two")
    streams = await open_streams(client, *ended)
    watch, _, work = await open_streams(client, *other)

    for issued in ended:
        await revoke(client, issued)

    for stream in streams:
        await assert_ended(stream)
    assert not watch.done()
    assert not work.done()


async def test_an_expiry_ends_open_streams(tmp_path):
    """Though nothing is called with the token any more."""
    clock = SystemClock()
    async with serving(tmp_path, clock) as client:
        expire_us = clock.now_us() + 4_000_000
        issued = await issue(client, "client", "one", expire_us=expire_us)
        agent = await issue(client, "agent", "one", expire_us=expire_us)
        for stream in await open_streams(client, issued, agent):
            await assert_ended(stream)


async def test_to_know_a_token_costs_no_look_into_the_store(client: Client):
    """Two hundred calls, good and bad, are no read and, in the same minute, one note of a use."""
    issued = await issue(client, "client", "one")
    reads, commits = client.server._tokens.store_reads, client.store.commits
    for _ in range(100):
        await issued.list_jobs()
        with pytest.raises(grpc.aio.AioRpcError):
            await Issued(client, issued.token, "wrong").list_jobs()
    assert client.server._tokens.store_reads == reads
    async with asyncio.timeout(DEADLINE_S):
        while client.store.commits == commits:
            await issued.list_jobs()
    assert client.store.commits == commits + 1


async def test_the_list_tells_all_but_the_secret(client: Client):
    """Role, projects, and when it was made, used, and ends or ended."""
    issued = await issue(
        client, "client", "two", "one", "one", expire_us=client.clock.now_us() + 10**9
    )
    token = (await listed(client))[issued.token.id]
    assert (token.role, [*token.projects]) == (token_pb.TOKEN_ROLE_CLIENT, ["one", "two"])
    assert token.create_time.ToMicroseconds() == client.clock.now_us()
    assert token.expire_time.ToMicroseconds() == client.clock.now_us() + 10**9
    assert not token.HasField("last_use_time")
    assert not token.HasField("revoke_time")

    await issued.list_jobs()
    await revoke(client, issued)

    token = (await listed(client))[issued.token.id]
    assert token.HasField("last_use_time")
    assert token.HasField("revoke_time")
    async with refused(Code.NOT_FOUND, "TOKEN_NOT_FOUND"):
        request = token_pb.RevokeTokenRequest(token_id="tok-0")
        await tokens(client).RevokeToken(request, metadata=AUTH)


@pytest.mark.parametrize(
    ("role", "projects", "expire_us"),
    [
        (0, ["one"], None),
        (1, [], None),
        (2, [], None),
        (3, ["one"], None),
        (1, ["One"], None),
        (1, ["a/b"], None),
        (1, ["x" * 65], None),
        (1, ["one"] * 101, None),
        (1, ["one"], 1),
    ],
)
async def test_a_malformed_wish_is_refused(client: Client, role, projects, expire_us):
    """No role, no project or one that is none, or an end that has passed."""
    request = token_pb.CreateTokenRequest(role=role, projects=projects)
    if expire_us is not None:
        request.expire_time.FromMicroseconds(expire_us)
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await tokens(client).CreateToken(request, metadata=AUTH)
    assert not await listed(client)


async def test_without_a_token_there_is_nothing_but_health(client: Client):
    """Not the services, not a method that does not exist, not reflection."""
    channel = client.channel
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status
    for method in ("runner.v1.TokenService/ListTokens", "runner.v1.Nothing/Here", "a.B/C"):
        call: Any = channel.unary_unary(f"/{method}")
        async with refused(Code.UNAUTHENTICATED, "TOKEN_MISSING"):
            await call(b"")
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    async with refused(Code.UNAUTHENTICATED, "TOKEN_MISSING"):
        await reflection.ServerReflectionInfo().read()
    issued = await issue(client, "client", "one")
    stream = reflection.ServerReflectionInfo(metadata=issued.auth)
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert (await stream.read()).list_services_response.service
    stream.cancel()
