"""A real job server on a real socket and port, and a client and an agent-runner that only know the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from daemon.clock import Clock, FixedClock
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.server.app import JobServer
from daemon.server.config import ServerConfig
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import agent_service_pb2_grpc as agent_rpc
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from runner.v1 import job_service_pb2_grpc as rpc
from runner.v1 import token_service_pb2 as token_pb
from runner.v1 import token_service_pb2_grpc as token_rpc

TOKEN = "a-token-of-this-test"
AUTH = (("authorization", f"Bearer {TOKEN}"),)
DEADLINE_S = 30.0


def server_config(root: Path, **overrides: Any) -> ServerConfig:
    values: dict[str, Any] = {
        "database": root / "jobs.db",
        "log_dir": root / "logs",
        "socket": root / "run" / "s",
        "listen": "127.0.0.1:0",
    }
    return ServerConfig(**(values | overrides))


@dataclass
class Client:
    """One connection with the token."""

    channel: grpc.aio.Channel
    config: ServerConfig
    server: JobServer
    store: SqliteJobStore
    clock: Any
    """A ``FixedClock`` unless the test asked for another one."""
    auth: tuple[tuple[str, str], ...] = AUTH
    token_id: str = ""
    """Of an issued token."""

    @property
    def jobs(self) -> Any:
        return _WithToken(rpc.JobServiceStub(self.channel), self.auth)

    @property
    def agents(self) -> Any:
        return _WithToken(agent_rpc.AgentServiceStub(self.channel), self.auth)

    @property
    def tokens(self) -> Any:
        return _WithToken(token_rpc.TokenServiceStub(self.channel), self.auth)

    async def issued(self, role: str, *projects: str, expire_us: int | None = None) -> Client:
        """Return this connection with a token of its own."""
        number = token_pb.TokenRole.Value(f"TOKEN_ROLE_{role.upper()}")
        request = token_pb.CreateTokenRequest(role=number, projects=projects)
        if expire_us is not None:
            request.expire_time.FromMicroseconds(expire_us)
        made = await self.tokens.CreateToken(request)
        auth = (("authorization", f"Bearer {made.secret}"),)
        return replace(self, auth=auth, token_id=made.token.id)

    async def submit(self, *argv: str, request_id: str = "", **fields: Any) -> job_pb2.Job:
        spec = job_pb2.JobSpec(argv=argv or ("true",), **fields)
        request = pb.SubmitJobRequest(spec=spec, request_id=request_id)
        response: pb.SubmitJobResponse = await self.jobs.SubmitJob(request)
        return response.job

    async def get(self, job_id: str) -> job_pb2.Job:
        response: pb.GetJobResponse = await self.jobs.GetJob(pb.GetJobRequest(job_id=job_id))
        return response.job

    async def cancel(self, job_id: str) -> job_pb2.Job:
        response: pb.CancelJobResponse = await self.jobs.CancelJob(
            pb.CancelJobRequest(job_id=job_id)
        )
        return response.job

    def read_log(self, job_id: str, **fields: Any) -> Any:
        return self.jobs.ReadLog(pb.ReadLogRequest(job_id=job_id, **fields))

    async def log(self, job_id: str, **fields: Any) -> tuple[bytes, pb.LogEnd]:
        data = b""
        async for piece in self.read_log(job_id, **fields):
            data += piece.data
        return data, piece.end


class _WithToken:
    """Calls a stub's methods with the token, so that no test forgets it by accident."""

    def __init__(self, stub: Any, auth: tuple[tuple[str, str], ...]) -> None:
        self._stub = stub
        self._auth = auth

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)
        return lambda *args, **kwargs: method(*args, **({"metadata": self._auth} | kwargs))


@asynccontextmanager
async def serving(
    root: Path, clock: Clock | None = None, **overrides: Any
) -> AsyncIterator[Client]:
    """Serve from ``root`` for as long as the block lasts. Time stands still unless the test moves it."""
    config = server_config(root, **overrides)
    clock = clock or FixedClock()
    store = SqliteJobStore(config.database, clock)
    server = JobServer(config, TOKEN, store, clock)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{config.socket}") as channel:
            yield Client(channel, config, server, store, clock)
    finally:
        await server.stop(DEADLINE_S)


async def next_events(watch: Any, count: int) -> list[job_pb2.JobEvent]:
    """Return the next changes of a watch, which may come in any number of messages."""
    events: list[job_pb2.JobEvent] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(events) < count:
            events += (await watch.read()).events
    assert len(events) == count
    return events


async def requeued(client: Client, job_id: str) -> None:
    """Wait until a job is back in the queue after its first attempt."""
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[job_id]))
    async with asyncio.timeout(DEADLINE_S):
        events: list[job_pb2.JobEvent] = []
        while not any(
            (event.attempt, event.state) == (1, job_pb2.JOB_STATE_PENDING) for event in events
        ):
            events = (await watch.read()).events
    watch.cancel()


@dataclass
class FakeAgent:
    """An agent-runner that does what a test tells it. Runs nothing."""

    client: Client
    name: str = "agent"
    incarnation: str = "first"
    slots: int = 2
    labels: dict[str, str] = field(default_factory=dict)
    projects: tuple[str, ...] = ()
    call: Any = None
    said: deque[tuple[str, Any]] = field(default_factory=deque)

    @property
    def identity(self) -> agent_pb.AgentIdentity:
        return agent_pb.AgentIdentity(name=self.name, incarnation=self.incarnation)

    async def register(self) -> agent_pb.RegisterAgentResponse:
        request = agent_pb.RegisterAgentRequest(
            agent=self.identity, slots=self.slots, labels=self.labels, projects=self.projects
        )
        response: agent_pb.RegisterAgentResponse = await self.client.agents.RegisterAgent(request)
        return response

    async def hello(self, *active: agent_pb.LeaseRef, **fields: Any) -> None:
        self.call = self.client.agents.Work()
        self.said.clear()
        hello = agent_pb.WorkHello(agent=self.identity, active=active, **fields)
        await self.call.write(agent_pb.WorkRequest(hello=hello))

    async def connect(self, *active: agent_pb.LeaseRef, draining: bool = False) -> FakeAgent:
        await self.register()
        await self.hello(*active, draining=draining)
        assert (await self.next())[0] == "welcome"
        return self

    async def next(self) -> tuple[str, Any]:
        """Return the next thing that the server says: the name of its field and its value."""
        while not self.said:
            async with asyncio.timeout(DEADLINE_S):
                response = await self.call.read()
            assert response is not grpc.aio.EOF, "the stream has ended"
            for descriptor, value in response.ListFields():
                values = value if descriptor.is_repeated else [value]
                self.said.extend((descriptor.name, one) for one in values)
        return self.said.popleft()

    async def assignment(self) -> agent_pb.Assignment:
        name, assignment = await self.next()
        assert name == "assignments", (name, assignment)
        return assignment

    async def say(self, **message: Any) -> None:
        await self.call.write(agent_pb.WorkRequest(**message))

    async def renew(self, *leases: agent_pb.LeaseRef) -> None:
        await self.say(renew=leases)

    async def finish(self, lease: agent_pb.LeaseRef, log: bytes = b"", **fields: Any) -> None:
        await self.client.agents.FinishAttempt(self.report(lease, log, **fields))

    @staticmethod
    def report(
        lease: agent_pb.LeaseRef, log: bytes = b"", **fields: Any
    ) -> agent_pb.FinishAttemptRequest:
        values: dict[str, Any] = {
            "end_reason": job_pb2.END_REASON_EXITED,
            "exit_code": 0,
            "log_tail": log,
            "log_bytes": len(log),
        }
        return agent_pb.FinishAttemptRequest(lease=lease, **(values | fields))

    async def append(self, lease: agent_pb.LeaseRef) -> LogCall:
        call = LogCall(self.client.agents.AppendLog())
        await call.call.write(agent_pb.AppendLogRequest(lease=lease))
        call.stored = await call.read()
        return call


@dataclass
class LogCall:
    """One AppendLog stream."""

    call: Any
    stored: int = 0

    async def read(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            response: agent_pb.AppendLogResponse = await self.call.read()
        return response.acknowledged_offset

    async def send(self, offset: int, data: bytes) -> int:
        await self.call.write(agent_pb.AppendLogRequest(offset=offset, data=data))
        return await self.read()


@dataclass
class Refusal:
    """What a refused call told."""

    text: str = ""
    trailers: dict[str, str] = field(default_factory=dict)


def reason(error: grpc.aio.AioRpcError) -> str:
    return str(dict(error.trailing_metadata()).get("reason", ""))


@asynccontextmanager
async def refused(code: grpc.StatusCode, why: str) -> AsyncIterator[Refusal]:
    """Expect a status with a reason."""
    refusal = Refusal()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield refusal
    error = caught.value
    assert (error.code(), reason(error)) == (code, why), error
    refusal.text = error.details() or ""
    refusal.trailers = {str(key): str(value) for key, value in error.trailing_metadata()}
