"""The measuring client, a process of its own: requests as lines of JSON on stdin, answers on stdout.

``python -m benchmarks.client``; driven by ``benchmarks.client_process``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import messages
from runner.v1 import job_pb2, job_service_pb2_grpc
from runner.v1 import job_service_pb2 as pb

FINAL = (
    job_pb2.JOB_STATE_SUCCEEDED,
    job_pb2.JOB_STATE_FAILED,
    job_pb2.JOB_STATE_CANCELLED,
)
RUNNING = (job_pb2.JOB_STATE_RUNNING,)
DIAL_OPTIONS = tuple((f"grpc.{name}_reconnect_backoff_ms", 5) for name in ("initial", "max"))
END_BOUND_S = 90.0
_LOOK_S = 0.002


class Ends:
    """When jobs ended, as a stream of events tells it. A job that did not succeed is an error."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self._problem = ""
        self._changed = asyncio.Event()

    async def read(self, call: Any) -> None:
        """Take every event of a stream, until it is cancelled."""
        async for response in call:
            now = time.monotonic()
            for event in response.events:
                if event.state not in FINAL:
                    continue
                if event.state != job_pb2.JOB_STATE_SUCCEEDED:
                    self._problem = f"a job did not succeed: {event}"
                self.times[event.job_id] = now
            self._changed.set()

    async def wait(self, job_id: str) -> float:
        """Return when a job ended.

        Raises:
            RuntimeError: It, or another one, did not succeed.
        """
        await self._until(lambda: job_id in self.times)
        return self.times[job_id]

    async def wait_count(self, count: int) -> float:
        """Return when so many jobs had ended; raises as ``wait``."""
        await self._until(lambda: len(self.times) >= count)
        return max(self.times.values())

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(END_BOUND_S):
            while not reached():
                if self._problem:
                    raise RuntimeError(self._problem)
                self._changed.clear()
                await self._changed.wait()


class Server:
    """A connection to one job server."""

    def __init__(self, target: Mapping[str, str]) -> None:
        self._channel = _channel(target)
        self._stub: Any = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {target['token']}"),)

    async def submit(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, masking: str = ""
    ) -> str:
        """Submit one job and return its id."""
        request = _request(argv, env)
        request.spec.masking = masking
        return str((await self._stub.SubmitJob(request, metadata=self._metadata)).job.id)

    async def submit_batch(self, argv: Sequence[str], count: int) -> None:
        """Submit several jobs in one call."""
        requests = [_request(argv) for _ in range(count)]
        await self._stub.SubmitJobs(
            pb.SubmitJobsRequest(requests=requests), metadata=self._metadata
        )

    def log(self, job_id: str) -> Any:
        """Return the stream of a log, followed to its end."""
        request = pb.ReadLogRequest(job_id=job_id, follow=True)
        return self._stub.ReadLog(request, metadata=self._metadata)

    @asynccontextmanager
    async def ends(self) -> AsyncIterator[Ends]:
        """Watch all jobs for as long as the block lasts."""
        ends = Ends()
        call = self._stub.WatchJobs(pb.WatchJobsRequest(after_event_id=-1), metadata=self._metadata)
        await call.initial_metadata()
        reading = asyncio.create_task(ends.read(call))
        try:
            yield ends
        finally:
            reading.cancel()
            call.cancel()
            await self._channel.close()

    async def cancel(self, job_id: str) -> None:
        """Ask for the end of a job."""
        await self._stub.CancelJob(pb.CancelJobRequest(job_id=job_id), metadata=self._metadata)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()

    async def state_time(self, job_id: str, states: Collection[int]) -> float:
        """Return when a job came into one of some states, as its events tell it, and close."""
        request = pb.WatchJobsRequest(job_ids=[job_id])
        call = self._stub.WatchJobs(request, metadata=self._metadata)
        async for response in call:
            if any(event.state in states for event in response.events):
                break
        now = time.monotonic()
        call.cancel()
        await self._channel.close()
        return now


async def each(target: Mapping[str, str], argv: list[str], jobs: int, in_flight: int) -> float:
    """Return the seconds from the first submit to the last end, one call per job."""
    server = Server(target)
    numbers = iter(range(jobs))

    async def submit() -> None:
        for _ in numbers:
            await server.submit(argv)

    async with server.ends() as ends:
        start = time.monotonic()
        await asyncio.gather(*(submit() for _ in range(in_flight)))
        return await ends.wait_count(jobs) - start


async def batch(target: Mapping[str, str], argv: list[str], jobs: int) -> float:
    """Return the seconds from the submit to the last end, one call for all jobs."""
    server = Server(target)
    async with server.ends() as ends:
        start = time.monotonic()
        await server.submit_batch(argv, jobs)
        return await ends.wait_count(jobs) - start


async def latencies(
    targets: list[dict[str, str]], argv: list[str], count: int, gap_s: float
) -> list[list[float]]:
    """Return the seconds from each submit to its end on idle systems, in turn, per target."""
    found: list[list[float]] = [[] for _ in targets]
    async with _watched(targets) as pairs:
        for _ in range(count):
            for times, (server, ends) in zip(found, pairs, strict=True):
                await asyncio.sleep(gap_s)
                start = time.monotonic()
                times.append(await ends.wait(await server.submit(argv)) - start)
    return found


async def first_bytes(target: Mapping[str, str], count: int, gap_s: float) -> list[list[float]]:
    """Return the seconds to the first log byte of a job that goes on, and to the end of a short one."""
    first, finished = list[float](), list[float]()
    async with _watched([target]) as [(server, ends)]:
        for _ in range(count):
            await asyncio.sleep(gap_s)
            start = time.monotonic()
            call = server.log(await server.submit(["/bin/sh", "-c", "echo hi; sleep 2"]))
            while not (await call.read()).data:
                pass
            first.append(time.monotonic() - start)
            call.cancel()
            await asyncio.sleep(gap_s)
            start = time.monotonic()
            job_id = await server.submit(["/bin/sh", "-c", "echo hi"])
            finished.append(await ends.wait(job_id) - start)
        await asyncio.sleep(2)  # the last of the long ones
    return [first, finished]


async def output(
    target: Mapping[str, str], argv: list[str], env: dict[str, str], follow: bool, masking: str = ""
) -> dict[str, Any]:
    """Run one job; return its seconds, the bytes of its log that were followed, and the first of them."""
    server = Server(target)
    async with server.ends() as ends:
        start = time.monotonic()
        job_id = await server.submit(argv, env, masking)
        size, head = 0, b""
        if follow:
            async for piece in server.log(job_id):
                size += len(piece.data)
                head = head or piece.data[:4096]
        seconds = await ends.wait(job_id) - start
    return {"seconds": seconds, "bytes": size, "head": head.decode("latin-1"), "job_id": job_id}


async def submit(target: Mapping[str, str], argv: list[str]) -> str:
    """Submit one job and return its id."""
    server = Server(target)
    job_id = await server.submit(argv)
    await server.close()
    return job_id


async def cancel(target: Mapping[str, str], job_id: str) -> None:
    """Cancel one job and wait until it has ended."""
    server = Server(target)
    await server.cancel(job_id)
    await server.state_time(job_id, FINAL)


async def first_lease(socket: str, token: str, argv: list[str]) -> list[float]:
    """Wait for a server that is being started; return when it answered and when a first job was leased."""
    while not os.path.exists(socket):  # noqa: ASYNC110, ASYNC240  # the least that can be asked
        await asyncio.sleep(_LOOK_S)
    async with grpc.aio.insecure_channel(f"unix:{socket}", options=DIAL_OPTIONS) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30)
        answered = time.monotonic()
    secret = Path(token).read_text().strip()  # noqa: ASYNC240
    server = Server({"endpoint": f"unix:{socket}", "token": secret})
    return [answered, await server.state_time(await server.submit(argv), RUNNING)]


@asynccontextmanager
async def _watched(
    targets: Sequence[Mapping[str, str]],
) -> AsyncIterator[list[tuple[Server, Ends]]]:
    async with AsyncExitStack() as stack:
        servers = [Server(target) for target in targets]
        yield [(server, await stack.enter_async_context(server.ends())) for server in servers]


def _channel(target: Mapping[str, str]) -> grpc.aio.Channel:
    if "tls_ca" not in target:
        return grpc.aio.insecure_channel(target["endpoint"])
    credentials = grpc.ssl_channel_credentials(Path(target["tls_ca"]).read_bytes())
    return grpc.aio.secure_channel(target["endpoint"], credentials)


def _request(argv: Sequence[str], env: Mapping[str, str] | None = None) -> pb.SubmitJobRequest:
    return pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=argv, env=env))


OPERATIONS = {
    function.__name__: function
    for function in (each, batch, latencies, first_bytes, output, submit, cancel, first_lease)
} | {"messages": messages.send}


async def serve() -> None:
    """Answer requests until stdin ends."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(line)
        operation: Any = OPERATIONS[request.pop("op")]
        try:
            answer = {"result": await operation(**request)}
        except (OSError, RuntimeError, grpc.aio.AioRpcError) as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
