"""ExplainJob: what a job waits on, what of it runs, how it ended, over a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import DEADLINE_S, Client, FakeAgent, refused


async def explain(client: Client, job_id: str) -> pb.ExplainJobResponse:
    request = pb.ExplainJobRequest(job_id=job_id)
    response: pb.ExplainJobResponse = await client.jobs.ExplainJob(request)
    return response


def kinds(response: pb.ExplainJobResponse) -> list[str]:
    return [wait.kind for wait in response.waits]


async def test_a_job_that_nobody_knows(client):
    """It is not found, as for every other call."""
    async with refused(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"):
        await explain(client, "nojob")


async def test_without_an_agent_runner(client):
    """The job waits for one to connect; one that was there before is named."""
    job = await client.submit()
    response = await explain(client, job.id)
    assert kinds(response) == ["agent"]
    assert response.summary == "waits: no agent-runner is connected"
    assert "connects" in response.next_step
    assert not response.HasField("live")
    agent = await FakeAgent(client, labels={"x": "y"}).connect(draining=True)
    response = await explain(client, job.id)
    assert response.summary == "waits: agent-runner agent takes nothing new: it is about to stop"
    agent.call.cancel()
    async with asyncio.timeout(20):
        while "(known: agent)" not in response.summary:
            response = await explain(client, job.id)


async def test_labels_that_nobody_offers(client):
    """Says which label is missing and what is offered; and when only the combination is missing."""
    await FakeAgent(client, name="one", labels={"os": "linux", "gpu": "h100"}).connect()
    await FakeAgent(client, name="two", labels={"os": "bsd"}).connect()
    missing = await client.submit(labels={"gpu": "a100", "os": "linux"})
    response = await explain(client, missing.id)
    assert kinds(response) == ["label"]
    assert response.waits[0].text == (
        "no connected agent-runner offers gpu=a100 (offered: one: gpu=h100, os=linux; two: os=bsd)"
    )
    split = await client.submit(labels={"gpu": "h100", "os": "bsd"})
    response = await explain(client, split.id)
    assert response.waits[0].text.startswith("no one agent-runner offers all of gpu=h100, os=bsd")


async def test_all_slots_busy(client):
    """Says whose slots are held by which jobs since when, and the place in the queue."""
    agent = await FakeAgent(client, slots=1).connect()
    first = await client.submit(name="first")
    await agent.assignment()
    client.clock.advance(60)
    second = await client.submit(name="second")
    third = await client.submit(name="third")
    response = await explain(client, third.id)
    assert kinds(response) == ["slot"]
    text = response.waits[0].text
    assert (
        f"no free slot: 1 slot of agent-runner agent busy since 2023-11-14 22:13:20 UTC ({first.id} first)"
        in text
    )
    assert text.endswith("; 1 job before it in the queue")
    assert list(response.waits[0].job_ids) == [first.id]
    assert (
        (await explain(client, second.id)).waits[0].text.endswith("; 0 jobs before it in the queue")
    )


async def test_a_tier_that_nobody_reaches(client):
    """A wall that the job demands and no agent-runner has is named before the job fails by it."""
    agent = FakeAgent(client, slots=1)
    request = agent_pb.RegisterAgentRequest(
        agent=agent.identity,
        slots=1,
        sandbox=job_pb2.SandboxInfo(kind="filesystem", tier="landlock"),
    )
    await client.agents.RegisterAgent(request)
    await agent.hello()
    assert (await agent.next())[0] == "welcome"
    await client.submit()
    await agent.assignment()
    job = await client.submit(sandbox=job_pb2.SandboxSpec(min="bwrap"))
    response = await explain(client, job.id)
    assert kinds(response) == ["sandbox"]
    assert "bwrap" in response.summary
    assert "agent=landlock" in response.summary
    job = await client.submit(sandbox=job_pb2.SandboxSpec(min="bwrap", kind="container"))
    assert kinds(await explain(client, job.id)) == ["slot"]


async def test_an_agent_runner_without_its_engine(client):
    """Until the engine is back it gets only jobs that do without a container; the others say what they wait for."""
    agent = FakeAgent(client, slots=9)
    await agent.register()
    offer = agent_pb.WorkOffer(no_containers="no engine", local_projects=["cli"])
    await agent.hello(offer=offer)
    assert (await agent.next())[0] == "welcome"
    waiting = [
        await client.submit(),
        await client.submit(project="cli", sandbox=job_pb2.SandboxSpec(kind="container")),
        await client.submit(sandbox=job_pb2.SandboxSpec(fallback="ask")),
    ]
    taken = [
        await client.submit(project="cli"),
        await client.submit(sandbox=job_pb2.SandboxSpec(kind="filesystem")),
        await client.submit(sandbox=job_pb2.SandboxSpec(fallback="allow")),
    ]
    assert [(await agent.assignment()).lease.job_id for _ in taken] == [job.id for job in taken]
    response = await explain(client, waiting[0].id)
    assert (kinds(response), "no engine" in response.summary) == (["engine"], True)
    assert "engine" in response.next_step
    await agent.say(offer=agent_pb.WorkOffer())
    assert [(await agent.assignment()).lease.job_id for _ in waiting] == [job.id for job in waiting]


async def answering(agent: FakeAgent, **answer: Any) -> None:
    name, inspect = await agent.next()
    assert name == "inspects"
    await agent.say(processes=[agent_pb.AttemptProcesses(inspection=inspect.inspection, **answer)])


async def test_a_running_job_shows_its_processes(client):
    """The tree comes from the agent-runner over its Work stream; times and the log from the server."""
    agent = await FakeAgent(client).connect()
    job = await client.submit(timeout=Duration(seconds=100))
    lease = (await agent.assignment()).lease
    await agent.renew(lease)
    async with asyncio.timeout(DEADLINE_S):
        while (await client.store.attempts(job.id))[0].renew_us is None:
            await asyncio.sleep(0.01)
    log = await agent.append(lease)
    await log.send(0, b"hello")
    process = job_pb2.LiveProcess(pid=42, parent_pid=1, command="sleep ***", state="S")
    telling = asyncio.create_task(answering(agent, processes=[process]))
    response = await explain(client, job.id)
    await telling
    assert list(response.live.processes) == [process]
    assert response.live.processes_unknown == ""
    assert (response.live.agent, response.live.connected) == ("agent", True)
    assert response.live.log_bytes == 5
    assert response.live.HasField("heartbeat_time")
    assert response.live.HasField("output_time")
    start = response.job.start_time.seconds
    assert response.live.lease_expire_time.seconds > start
    assert response.next_step_time.seconds == start + 100
    assert "longer than 1 min 40 s" in response.next_step
    assert response.summary == "runs on agent-runner agent (attempt 1, for 0.0 s)"
    assert not response.waits


async def test_silence_comes_before_the_time_out(client):
    """The next step of a job with a bound on silence is that bound, from its last output."""
    agent = await FakeAgent(client).connect()
    job = await client.submit(timeout=Duration(seconds=100), idle_timeout=Duration(seconds=7))
    lease = (await agent.assignment()).lease
    telling = asyncio.create_task(answering(agent, unknown="not yet"))
    response = await explain(client, job.id)
    await telling
    assert response.live.processes_unknown == "not yet"
    assert response.next_step == "it is stopped if it prints nothing for 7.0 s"
    assert response.next_step_time.seconds == response.job.start_time.seconds + 7
    assert not response.live.HasField("output_time")
    assert lease.attempt == 1


async def test_an_agent_runner_that_does_not_answer(client):
    """The rest of the answer comes all the same, after two seconds and with the reason."""
    agent = await FakeAgent(client).connect()
    job = await client.submit()
    await agent.assignment()
    async with asyncio.timeout(10):
        response = await explain(client, job.id)
    assert "no answer within 2 s" in response.live.processes_unknown
    assert response.live.connected


async def test_an_agent_runner_that_leaves_meanwhile(client):
    """Nobody waits for the answer of a connection that has ended."""
    agent = await FakeAgent(client).connect()
    job = await client.submit()
    await agent.assignment()
    asking = asyncio.create_task(explain(client, job.id))
    assert (await agent.next())[0] == "inspects"
    agent.call.cancel()
    response = await asking
    assert response.live.processes_unknown == "its agent-runner lost the connection meanwhile"
    async with asyncio.timeout(20):
        while response.live.connected:
            response = await explain(client, job.id)
    assert response.live.processes_unknown == "its agent-runner is not connected"
    assert "queued again (loss 1 of 3)" in response.next_step
    assert response.next_step_time == response.live.lease_expire_time


async def test_an_answer_to_somebody_else_is_dropped(client):
    """An agent-runner cannot answer for another one, nor a question that nobody asked."""
    agent = await FakeAgent(client, slots=1).connect()
    other = await FakeAgent(client, name="other").connect(draining=True)
    job = await client.submit()
    await agent.assignment()
    asking = asyncio.create_task(explain(client, job.id))
    name, inspect = await agent.next()
    assert name == "inspects"
    number = inspect.inspection
    forged = agent_pb.AttemptProcesses(inspection=number, unknown="forged")
    await other.say(processes=[forged, agent_pb.AttemptProcesses(inspection=number + 7)])
    await other.say(drain=True)
    await agent.say(processes=[agent_pb.AttemptProcesses(inspection=number, unknown="true")])
    assert (await asking).live.processes_unknown == "true"


async def test_a_job_that_is_being_cancelled(client):
    """The next step is the KILL, ten seconds after the request."""
    agent = await FakeAgent(client).connect()
    job = await client.submit()
    await agent.assignment()
    client.clock.advance(30)
    await client.cancel(job.id)
    assert (await agent.next())[0] == "cancels"
    telling = asyncio.create_task(answering(agent))
    response = await explain(client, job.id)
    await telling
    assert response.summary == "is being cancelled on agent-runner agent (attempt 1, for 30.0 s)"
    assert "KILL" in response.next_step
    assert response.next_step_time.seconds == response.job.start_time.seconds + 40


@pytest.mark.parametrize(
    ("report", "summary"),
    [
        ({}, "succeeded, after 2.0 s"),
        ({"exit_code": 3}, "failed: its command ended with exit code 3, after 2.0 s"),
        (
            {"end_reason": job_pb2.END_REASON_TIMED_OUT, "message": "ran longer than 1 s"},
            "was stopped by its time-out (ran longer than 1 s), after 2.0 s",
        ),
    ],
)
async def test_a_job_that_has_ended(client, report, summary):
    """One sentence says how and why."""
    agent = await FakeAgent(client).connect()
    job = await client.submit()
    lease = (await agent.assignment()).lease
    client.clock.advance(2)
    await agent.finish(lease, **report)
    response = await explain(client, job.id)
    assert response.summary == summary
    assert not response.waits
    assert not response.next_step
    assert not response.HasField("live")


async def test_a_job_that_was_cancelled_in_the_queue(client):
    """It never began, and that is said."""
    job = await client.submit()
    await client.cancel(job.id)
    assert (await explain(client, job.id)).summary == "was cancelled before it began"
