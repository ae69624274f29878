"""The stream of one log over a real socket: what is acknowledged, and when."""

from __future__ import annotations

import time

from daemon.jobs.log_files import LogFiles
from daemon.server import agent_service
from daemon.server.read_ahead import ReadAhead
from runner.v1 import agent_service_pb2 as agent_pb
from tests.integration.grpc_server import DEADLINE_S, Client, FakeAgent


async def test_a_log_without_a_pause_is_acknowledged_by_the_mebibyte(client: Client, monkeypatch):
    """Each message costs both sides; the last piece is acknowledged whatever its size."""
    piece, count = bytes(64 << 10), 40
    streams: list[ReadAhead[agent_pb.AppendLogRequest]] = []
    append = LogFiles.append

    class Kept(ReadAhead[agent_pb.AppendLogRequest]):
        def __init__(self, messages):
            super().__init__(messages)
            streams.append(self)

    def slow(self, job_id, attempt, offset, data):
        until = time.monotonic() + DEADLINE_S
        while offset < (count - 1) * len(piece) and not streams[0].waiting:
            assert time.monotonic() < until
            time.sleep(0.001)
        return append(self, job_id, attempt, offset, data)

    agent = await FakeAgent(client).connect()
    await client.submit("true")
    monkeypatch.setattr(LogFiles, "append", slow)
    monkeypatch.setattr(agent_service, "ReadAhead", Kept)
    log = await agent.append((await agent.assignment()).lease)
    for number in range(count):
        request = agent_pb.AppendLogRequest(offset=number * len(piece), data=piece)
        await log.call.write(request)

    assert [await log.read() for _ in range(3)] == [1 << 20, 2 << 20, count * len(piece)]
