"""The agent-runner's end of the Work stream against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent_runner import grpc_work_stream
from agent_runner.client import Assigned, Inspection, Lease, Welcome
from agent_runner.grpc_calls import lease_to_pb
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.grpc_work_stream import GrpcWorkStream
from agent_runner.outcome import EndReason, Outcome, SandboxRecord
from agent_runner.server_link import ServerLink
from runner.v1 import agent_service_pb2 as pb
from sandbox.base import LiveProcess
from tests.integration.grpc_server import DEADLINE_S, TOKEN, Client, serving

PROCESSES = [
    LiveProcess(pid=pid, parent_pid=1, command="x" * 200, state="S", cpu_s=1.5, start_s=1e9)
    for pid in range(500)
]
"""As many as are ever told of one attempt, with commands as long as they are told."""


@asynccontextmanager
async def opened(
    root: Path, slots: int
) -> AsyncIterator[tuple[Client, GrpcDaemonClient, GrpcWorkStream]]:
    """A server, an agent-runner's client of it, and the stream between them."""
    async with serving(root) as server, asyncio.timeout(DEADLINE_S):
        link = ServerLink(address=f"unix:{server.config.socket}")
        client = GrpcDaemonClient(link, TOKEN, "agent", "1")
        try:
            await client.register(slots, {}, SandboxRecord())
            stream = await client.work((), draining=False)
            yield server, client, stream
            stream.close()
        finally:
            await client.close()


async def test_many_inspections_at_once(tmp_path):
    """Their answers are too large for one message; the stream lives on and takes a job."""
    async with opened(tmp_path, 1) as (server, _, stream):
        answers = [Inspection(number=number, processes=PROCESSES) for number in range(40)]
        await asyncio.gather(*map(stream.answer, answers))
        job = await server.submit("true")

        messages = stream.messages()
        assert isinstance(await anext(messages), Welcome)
        assigned = await anext(messages)

        assert isinstance(assigned, Assigned)
        assert assigned.lease.job_id == job.id


async def test_reports_without_an_answer_are_given_up(tmp_path, monkeypatch):
    """Each after its own time, whether others wait or not; they are repeated by a call."""
    monkeypatch.setattr(grpc_work_stream, "REPORT_TIMEOUT_S", 0.05)
    async with opened(tmp_path, 1) as (_, _, stream):  # which nobody reads
        leases = [Lease(job_id="job", attempt=number, token="t") for number in range(3)]
        reports = [pb.FinishAttemptRequest(lease=lease_to_pb(lease)) for lease in leases]

        assert await asyncio.gather(*map(stream.report, leases, reports)) == [False] * 3
        assert await stream.report(leases[0], reports[0]) is False


async def test_a_report_that_is_not_urgent_waits_for_company(tmp_path, monkeypatch):
    """It goes with the next one that is, in one message."""
    monkeypatch.setattr(grpc_work_stream, "HOLD_S", DEADLINE_S * 10)
    async with opened(tmp_path, 2) as (server, client, stream):
        for _ in range(2):
            await server.submit("true")
        messages = stream.messages()
        leases: list[Lease] = []
        while len(leases) < 2:
            if isinstance(message := await anext(messages), Assigned):
                leases.append(message.lease)
        sizes: list[int] = []
        write = stream._call.write

        def counted(request):
            sizes.append(len(request.reports))
            return write(request)

        monkeypatch.setattr(stream._call, "write", counted)
        outcome = Outcome(end_reason=EndReason.EXITED, exit_code=0)
        patient = client.report(leases[0], outcome, 0, b"", urgent=False)
        await asyncio.sleep(0)
        assert sizes == []
        urgent = client.report(leases[1], outcome, 0, b"")
        reading = asyncio.ensure_future(anext(messages))
        assert all([await patient, await urgent])
        assert sizes == [2]
        reading.cancel()
        await asyncio.wait([reading])
