"""Short jobs come ahead of their slots: which agent-runners get them, and what becomes of one whose slot does not come free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_runner import grpc_client, leased_attempt, slots
from agent_runner.attempt_control import AttemptControl
from daemon.server import pace
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2, job_service_pb2
from tests.integration.grpc_server import DEADLINE_S, Client, FakeAgent
from tests.integration.test_agent_leases import nothing_sent
from tests.integration.worker_rig import Rig

PENDING, RUNNING = job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_RUNNING


@pytest.fixture
def any_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots come free fast, however slow this host is."""
    monkeypatch.setattr(pace, "WITHIN_S", DEADLINE_S)


async def connected(client: Client, slots: int, *, look_ahead: bool) -> FakeAgent:
    agent = FakeAgent(client, slots=slots)
    await agent.register()
    await agent.hello(look_ahead=look_ahead)
    assert (await agent.next())[0] == "welcome"
    return agent


async def ended(agent: FakeAgent, lease: agent_pb.LeaseRef, **fields: Any) -> None:
    await agent.say(reports=[agent.report(lease, **fields)])
    assert await agent.next() == ("ended", lease)


@pytest.mark.usefixtures("any_pace")
@pytest.mark.parametrize("look_ahead", [False, True])
async def test_as_many_come_ahead_as_have_just_ended(
    client: Client, monkeypatch: pytest.MonkeyPatch, look_ahead: bool
) -> None:
    """Only to who waits for them, beyond one end per slot, and never more than is of use."""
    monkeypatch.setattr(pace, "MOST", 2)
    agent = await connected(client, 2, look_ahead=look_ahead)
    jobs = [await client.submit("true") for _ in range(9)]
    held = [(await agent.assignment()).lease for _ in range(2)]
    for ahead in (0, 0, 1, 2, 2):
        await ended(agent, held.pop(0))
        while len(held) < 2 + (ahead if look_ahead else 0):
            held.append((await agent.assignment()).lease)
        assert await nothing_sent(agent)
    order = [lease.job_id for lease in held]
    assert order == [job.id for job in jobs[5 : 5 + len(held)]]


@pytest.mark.usefixtures("any_pace")
async def test_one_that_comes_back_is_in_the_queue_again(client: Client) -> None:
    """It does not count, its agent-runner gets other jobs as their slots come free, and nothing ahead of them."""
    agent = await connected(client, 1, look_ahead=True)
    jobs = [await client.submit("true") for _ in range(4)]
    await ended(agent, (await agent.assignment()).lease)
    await ended(agent, (await agent.assignment()).lease)
    running, ahead = (await agent.assignment()).lease, (await agent.assignment()).lease
    assert (await client.get(jobs[3].id)).state == RUNNING

    await ended(agent, ahead, interrupted=True, returned=True)

    assert await nothing_sent(agent)
    waiting = await client.get(jobs[3].id)
    assert (waiting.state, waiting.attempt) == (PENDING, 1)
    await ended(agent, running)
    again = (await agent.assignment()).lease
    assert (again.job_id, again.attempt) == (jobs[3].id, 2)


@pytest.mark.usefixtures("any_pace")
async def test_a_short_job_behind_a_long_one_goes_back(rig: Rig) -> None:
    """After a moment; it runs when there is a slot."""
    await rig.start_agent(slots=1)
    await rig.ended(await rig.submit())
    await rig.ended(await rig.submit())
    first = await rig.submit(SCRIPT_SLEEP_S="0.3")
    long, short = await rig.submit(SCRIPT_SLEEP_S="600"), await rig.submit()
    await rig.ended(first)

    job = await rig.until(short, lambda job: job.attempt == 1 and job.state == PENDING)

    assert job.attempts[0].message == "no slot of the agent-runner was free in time"
    assert (await rig.job(long)).state == RUNNING
    await cancel(rig, long)
    job = await rig.ended(short)
    assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 2)


@pytest.mark.usefixtures("any_pace")
@pytest.mark.parametrize("cancelled", ["waiting", "running"])
async def test_one_that_waits_for_its_slot(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, cancelled: str
) -> None:
    """It can be cancelled at once, while the slot is taken; or has the slot when that is free, and begins."""
    monkeypatch.setattr(slots, "WAIT_S", DEADLINE_S)
    await rig.start_agent(slots=1)
    await rig.ended(await rig.submit())
    await rig.ended(await rig.submit())
    first = await rig.submit(SCRIPT_SLEEP_S="0.3")
    long, short = await rig.submit(SCRIPT_SLEEP_S="600"), await rig.submit(SCRIPT_OUTPUT="ran")
    await rig.ended(first)
    await rig.until(short, lambda job: job.state == RUNNING)

    await cancel(rig, short if cancelled == "waiting" else long)

    job = await rig.ended(short)
    if cancelled == "waiting":
        assert (job.state, await rig.log(short)) == (job_pb2.JOB_STATE_CANCELLED, b"")
        assert (await rig.job(long)).state == RUNNING
    else:
        assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 1)
        assert await rig.log(short) == b"ran"


async def test_who_waits_for_a_sandbox_to_go_does_not_come_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server gives a slot that it knows to be free; that the sandbox is removed for long costs the next job no attempt."""
    monkeypatch.setattr(slots, "WAIT_S", 0.01)
    await rig.start_agent(slots=1)
    slow, next_ = await rig.submit(SCRIPT_DESTROY_S="0.3"), await rig.submit()
    assert (await rig.ended(slow)).state == job_pb2.JOB_STATE_SUCCEEDED
    job = await rig.ended(next_)
    assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 1)


@pytest.mark.parametrize("broken", ["spool", "attempt", "report"])
async def test_a_defect_costs_no_slot_and_no_result(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Whatever fails once on the way of an attempt, the next job runs; one that has ended is reported by another way."""
    places: dict[str, tuple[object, str]] = {
        "spool": (leased_attempt.LeasedAttempt, "_make_spool"),
        "attempt": (leased_attempt, "AttemptRun"),
        "report": (grpc_client, "_report"),
    }
    failures = [RuntimeError("a defect")]
    place, name = places[broken]
    real = getattr(place, name)

    def once(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    worker = await rig.start_agent(slots=1)
    monkeypatch.setattr(place, name, once)
    first = await rig.submit()
    if broken == "report":
        job = await rig.ended(first)
        assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 1)
    else:
        async with asyncio.timeout(DEADLINE_S):
            while failures or worker._tasks:
                await asyncio.sleep(0.01)
        assert await worker._slots.take(AttemptControl())
        rig.tasks.pop().cancel()
        await rig.start_agent(incarnation="2", slots=1)
        assert (await rig.ended(first)).attempt == 2
    assert (await rig.ended(await rig.submit())).state == job_pb2.JOB_STATE_SUCCEEDED


async def cancel(rig: Rig, job_id: str) -> None:
    request = job_service_pb2.CancelJobRequest(job_id=job_id)
    await rig.stub.CancelJob(request, metadata=rig.metadata)
