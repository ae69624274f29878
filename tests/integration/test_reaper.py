"""The reaper of a server that stood still, on a real server."""

from __future__ import annotations

import asyncio
import time

from daemon.errors import StoreUnavailableError
from daemon.jobs.models import Job
from daemon.server import reaper
from runner.v1 import job_pb2
from tests.integration.grpc_server import DEADLINE_S, FakeAgent, serving

LATE_S = 0.5


async def test_standstill_is_forgiven_although_the_store_fails_at_first(tmp_path, monkeypatch):
    """No lease is ended before every one has its full term; its agent-runner could not renew it meanwhile."""
    monkeypatch.setattr(reaper, "LATE_S", LATE_S)
    async with serving(tmp_path) as client:
        agent = await FakeAgent(client).connect()
        job = await client.submit("true")
        await agent.assignment()
        looked: asyncio.Queue[str] = asyncio.Queue()
        extend, expire = client.store.extend_all_leases, client.store.expire_leases

        failures = iter([StoreUnavailableError("the disk is full")])

        async def failing_once(lease_s: float) -> None:
            for failure in failures:
                looked.put_nowait("failed")
                raise failure
            await extend(lease_s)
            looked.put_nowait("extended")

        async def noted() -> list[Job]:
            looked.put_nowait("reaped")
            return await expire()

        monkeypatch.setattr(client.store, "extend_all_leases", failing_once)
        monkeypatch.setattr(client.store, "expire_leases", noted)
        client.clock.advance(31)
        time.sleep(reaper.INTERVAL_S + 2 * LATE_S)  # the whole server stands still

        async with asyncio.timeout(DEADLINE_S):
            assert [await looked.get() for _ in range(2)] == ["failed", "extended"]
            for _ in range(2):
                while await looked.get() != "reaped":  # it may be late once more, on a busy host
                    pass

        assert (await client.get(job.id)).state == job_pb2.JOB_STATE_RUNNING
        assert (await client.get(job.id)).attempt == 1
