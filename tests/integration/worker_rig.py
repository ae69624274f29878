"""A job server with agent-runners beside it, over a real socket, with commands in the scripted sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from agent_runner.config import AgentRunnerConfig
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.offering import Offering
from agent_runner.outcome import SandboxRecord
from agent_runner.secret_source import GivenSecrets
from agent_runner.worker import Worker
from daemon.clock import SystemClock
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.server.app import JobServer
from daemon.server.config import ServerConfig
from runner.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from sandbox.factory import open_provider

TOKEN = "t" * 43
DEADLINE_S = 30.0


class CountingClient(GrpcDaemonClient):
    """The real client; it also counts the messages that carry jobs."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.messages: list[str] = []

        self._stub = CountedStub(self._stub, self.messages)  # type: ignore[assignment]


class CountedStub:
    """A stub that notes the name of every call but Work, whose messages are noted."""

    def __init__(self, stub: Any, messages: list[str]) -> None:
        self._stub = stub
        self._messages = messages

    def __getattr__(self, name: str) -> Any:
        if name != "Work":
            self._messages.append(name)
            return getattr(self._stub, name)
        return lambda **kwargs: CountedCall(self._stub.Work(**kwargs), self._messages)


class CountedCall:
    """A Work call that notes the fields of every message."""

    def __init__(self, call: Any, messages: list[str]) -> None:
        self._call = call
        self._messages = messages
        self.cancel = call.cancel

    async def write(self, message: Any) -> None:
        self._note("sent", message)
        await self._call.write(message)

    async def read(self) -> Any:
        message = await self._call.read()
        if message is not grpc.aio.EOF:
            self._note("got", message)
        return message

    def _note(self, what: str, message: Any) -> None:
        fields = " ".join(descriptor.name for descriptor, _ in message.ListFields())
        self._messages.append(f"{what} {fields}")


class Rig:
    """One server that can be stopped and started again, and any number of agent-runners."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = ServerConfig(
            database=root / "db", log_dir=root / "logs", socket=root / "s.sock", listen="none"
        )
        self.server: JobServer | None = None
        self.channel = grpc.aio.insecure_channel(f"unix:{self.config.socket}")
        self.stub: Any = job_service_pb2_grpc.JobServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {TOKEN}"),)
        self.tasks: list[asyncio.Task[None]] = []

    async def start_server(self) -> None:
        self.store = SqliteJobStore(self.config.database, SystemClock())
        self.server = JobServer(self.config, TOKEN, self.store)
        await self.server.start()
        await self._until_answered()

    async def _until_answered(self) -> None:
        """Wait until calls go to this server: the channel may not have seen yet that the one before has gone."""
        request = job_service_pb2.ListJobsRequest(page_size=1)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    await self.stub.ListJobs(request, metadata=self.metadata, wait_for_ready=True)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                else:
                    return

    async def stop_server(self) -> None:
        if self.server is not None:
            await self.server.stop(0)
            self.server = None

    async def start_agent(
        self, name: str = "a", incarnation: str = "1", token: str = TOKEN, **values: Any
    ) -> Worker:
        spool = self.root / f"spool-{name}"
        spool.mkdir(exist_ok=True)
        config = AgentRunnerConfig(
            name=name,
            endpoint=f"unix:{self.config.socket}",
            spool_dir=spool,
            workspace_dir=self.root / "ws",
            owner_label="test",
            **values,
        )
        provider = open_provider("scripted", root=self.root / "ws", owner_label="test")
        self.offering = Offering()
        client = self.client = CountingClient(config.server, token, name, incarnation)
        ready = asyncio.Event()
        record = SandboxRecord(kind="scripted")
        worker = Worker(
            config=config,
            client=client,
            provider=provider,
            sandbox=record,
            secrets=GivenSecrets({}),
            on_ready=ready.set,
            offering=self.offering,
        )
        task = asyncio.create_task(worker.run())
        self.tasks.append(task)
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        return worker

    async def submit(self, sandbox: job_pb2.SandboxSpec | None = None, **env: str) -> str:
        spec = job_pb2.JobSpec(name="j", argv=["x"], env=env, sandbox=sandbox)
        request = job_service_pb2.SubmitJobRequest(spec=spec)
        return str((await self.stub.SubmitJob(request, metadata=self.metadata)).job.id)

    async def job(self, job_id: str) -> job_pb2.Job:
        request = job_service_pb2.GetJobRequest(job_id=job_id)
        response = await self.stub.GetJob(request, metadata=self.metadata, wait_for_ready=True)
        job: job_pb2.Job = response.job
        return job

    async def until(self, job_id: str, condition: Callable[[job_pb2.Job], bool]) -> job_pb2.Job:
        async with asyncio.timeout(DEADLINE_S):
            while not condition(job := await self.job(job_id)):
                await asyncio.sleep(0.01)
        return job

    async def ended(self, job_id: str) -> job_pb2.Job:
        final = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
        return await self.until(job_id, lambda job: job.state in final)

    async def log(self, job_id: str) -> bytes:
        request = job_service_pb2.ReadLogRequest(job_id=job_id)
        pieces = self.stub.ReadLog(request, metadata=self.metadata)
        return b"".join([piece.data async for piece in pieces])

    async def wait_log(self, job_id: str, length: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(await self.log(job_id)) < length:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        try:
            if self.tasks:
                await asyncio.wait(self.tasks)
            await self.channel.close()
        finally:
            await self.stop_server()
