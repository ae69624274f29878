"""What a call has begun is completed although its client has gone away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import DEADLINE_S, Client, FakeAgent


@asynccontextmanager
async def commits_held(client: Client) -> AsyncIterator[None]:
    """Let the store accept changes, but commit none of them before the end of the block."""
    go = threading.Event()
    holding = asyncio.create_task(client.store._writer.run(lambda _: go.wait(DEADLINE_S)))
    await asyncio.sleep(0)  # it is the first one from here on
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    finally:
        go.set()
    await holding


@pytest.mark.parametrize("connected", [True, False], ids=["free slot", "agent-runner to come"])
async def test_submit_of_a_client_that_left_is_dispatched(
    client: Client, monkeypatch, connected: bool
):
    """The job is stored, so it must run, and watchers must hear of it, although nobody waits for the answer."""
    submit = client.store.submit
    begun, left = asyncio.Event(), asyncio.Event()

    async def told(*args):
        begun.set()
        try:
            return await submit(*args)
        except asyncio.CancelledError:
            left.set()
            raise

    agent = FakeAgent(client)
    if connected:
        await agent.connect()
    watch = client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=-1))
    await watch.initial_metadata()
    monkeypatch.setattr(client.store, "submit", told)
    async with commits_held(client):
        leaving = asyncio.create_task(client.submit("true"))
        await begun.wait()
        leaving.cancel()
        await left.wait()
    async with asyncio.timeout(DEADLINE_S):
        response = await watch.read()
    if not connected:
        await agent.connect()

    assert (await agent.assignment()).lease.job_id == response.events[0].job_id
