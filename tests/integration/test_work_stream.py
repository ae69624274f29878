"""The agent-runner's end of the Work stream against a real server."""

from __future__ import annotations

import asyncio

from agent_runner import grpc_work_stream
from agent_runner.client import Assigned, Inspection, Lease, Welcome
from agent_runner.grpc_calls import lease_to_pb
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.outcome import SandboxRecord
from agent_runner.server_link import ServerLink
from runner.v1 import agent_service_pb2 as pb
from sandbox.base import LiveProcess
from tests.integration.grpc_server import DEADLINE_S, TOKEN, serving

PROCESSES = [
    LiveProcess(pid=pid, parent_pid=1, command="x" * 200, state="S", cpu_s=1.5, start_s=1e9)
    for pid in range(500)
]
"""As many as are ever told of one attempt, with commands as long as they are told."""


async def test_many_inspections_at_once(tmp_path):
    """Their answers are too large for one message; the stream lives on and takes a job."""
    async with serving(tmp_path) as server, asyncio.timeout(DEADLINE_S):
        link = ServerLink(address=f"unix:{server.config.socket}")
        client = GrpcDaemonClient(link, TOKEN, "agent", "1")
        try:
            await client.register(1, {}, SandboxRecord())
            stream = await client.work((), draining=False)
            answers = [Inspection(number=number, processes=PROCESSES) for number in range(40)]
            await asyncio.gather(*map(stream.answer, answers))
            job = await server.submit("true")

            messages = stream.messages()
            assert isinstance(await anext(messages), Welcome)
            assigned = await anext(messages)

            assert isinstance(assigned, Assigned)
            assert assigned.lease.job_id == job.id
            stream.close()
        finally:
            await client.close()


async def test_reports_without_an_answer_are_given_up(tmp_path, monkeypatch):
    """Each after its own time, whether others wait or not; they are repeated by a call."""
    monkeypatch.setattr(grpc_work_stream, "REPORT_TIMEOUT_S", 0.05)
    async with serving(tmp_path) as server, asyncio.timeout(DEADLINE_S):
        link = ServerLink(address=f"unix:{server.config.socket}")
        client = GrpcDaemonClient(link, TOKEN, "agent", "1")
        try:
            await client.register(1, {}, SandboxRecord())
            stream = await client.work((), draining=False)  # which nobody reads
            leases = [Lease(job_id="job", attempt=number, token="t") for number in range(3)]
            reports = [pb.FinishAttemptRequest(lease=lease_to_pb(lease)) for lease in leases]

            assert await asyncio.gather(*map(stream.report, reports)) == [False] * 3
            assert await stream.report(reports[0]) is False
            stream.close()
        finally:
            await client.close()
