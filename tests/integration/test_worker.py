"""The work loop against a real job server over a real socket, with commands in the scripted sandbox."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from agent_runner import delivery
from agent_runner.client import Lease
from agent_runner.errors import ServerRefusedError
from agent_runner.grpc_client import GrpcDaemonClient
from agent_runner.spool import Spool
from runner.v1 import job_pb2, job_service_pb2
from tests.integration.worker_rig import DEADLINE_S, Rig

LONG_S = "2"
"""Long enough that whoever does something while a job runs is in time, and no longer: some wait for its end."""


async def test_a_short_job_needs_no_log_stream(rig: Rig) -> None:
    """Its log rides in the message that ends it, and its spool is removed."""
    await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="hello\n", SCRIPT_EXIT_CODE="3")
    job = await rig.ended(job_id)
    assert (job.state, job.exit_code) == (job_pb2.JOB_STATE_FAILED, 3)
    assert await rig.log(job_id) == b"hello\n"
    assert job.attempts[0].log_sha256 == hashlib.sha256(b"hello\n").hexdigest()
    async with asyncio.timeout(DEADLINE_S):
        while list((rig.root / "spool-a").iterdir()):
            await asyncio.sleep(0.01)


async def got_ended(rig: Rig) -> None:
    """Wait until the agent-runner knows an end, too: whoever asks may know it before."""
    async with asyncio.timeout(DEADLINE_S):
        while "got ended" not in rig.client.messages:
            await asyncio.sleep(0.01)


async def test_a_short_job_is_three_messages(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The assignment, the report with the whole log, its answer; and two commits, of submit and claim and of the end."""
    monkeypatch.setattr(delivery, "FIRST_SEND_DELAY_S", DEADLINE_S)  # it is short on any host
    await rig.start_agent()
    await rig.ended(await rig.submit())
    await got_ended(rig)
    rig.client.messages.clear()
    before = rig.store.commits
    await rig.ended(await rig.submit(SCRIPT_OUTPUT="x" * 60_000))
    await got_ended(rig)
    assert rig.client.messages == ["got assignments", "sent reports", "got ended"]
    assert rig.store.commits - before == 2


async def test_a_long_log_arrives_whole(rig: Rig) -> None:
    """More than any window: every byte, once."""
    await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="0123456789abcdef" * 4096, SCRIPT_OUTPUT_REPEAT="500")
    job = await rig.ended(job_id)
    expected = b"0123456789abcdef" * 4096 * 500
    assert job.attempts[0].log_bytes == len(expected)
    assert await rig.log(job_id) == expected


async def test_a_running_job_shows_its_log(rig: Rig) -> None:
    """The first bytes are there long before the end."""
    await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="early\n", SCRIPT_SLEEP_S="600")
    await rig.wait_log(job_id, 6)
    await rig.stub.CancelJob(job_service_pb2.CancelJobRequest(job_id=job_id), metadata=rig.metadata)
    job = await rig.ended(job_id)
    assert (job.state, job.end_reason) == (
        job_pb2.JOB_STATE_CANCELLED,
        job_pb2.END_REASON_CANCELLED,
    )
    assert await rig.log(job_id) == b"early\n"


async def test_slots_bound_what_runs_at_once(rig: Rig) -> None:
    """Of five jobs two run; the others wait in the queue and all end."""
    await rig.start_agent(slots=2)
    ids = [await rig.submit(SCRIPT_OUTPUT="up", SCRIPT_SLEEP_S="600") for _ in range(2)]
    ids += [await rig.submit() for _ in range(3)]
    for job_id in ids[:2]:
        await rig.wait_log(job_id, 2)
    states = [(await rig.job(job_id)).state for job_id in ids]
    assert states == [job_pb2.JOB_STATE_RUNNING] * 2 + [job_pb2.JOB_STATE_PENDING] * 3
    for job_id in ids[:2]:
        request = job_service_pb2.CancelJobRequest(job_id=job_id)
        await rig.stub.CancelJob(request, metadata=rig.metadata)
    assert [(await rig.ended(job_id)).state for job_id in ids] == [
        *[job_pb2.JOB_STATE_CANCELLED] * 2,
        *[job_pb2.JOB_STATE_SUCCEEDED] * 3,
    ]


async def test_a_result_waits_for_the_server(rig: Rig) -> None:
    """The server is away when the job ends: log and result arrive when it is back, in the same attempt."""
    await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="before\n", SCRIPT_SLEEP_S="0.3", SCRIPT_EXIT_CODE="5")
    await rig.wait_log(job_id, 7)
    await rig.stop_server()
    await asyncio.sleep(0.5)  # the job ends in this time
    await rig.start_server()
    job = await rig.ended(job_id)
    assert (job.exit_code, job.attempt) == (5, 1)
    assert await rig.log(job_id) == b"before\n"
    second = await rig.submit()
    assert (await rig.ended(second)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_without_its_engine_it_takes_what_does_without(rig: Rig) -> None:
    """Said when it is so, said again to a server that has just started, and taken back."""
    await rig.start_agent()
    rig.offering.engine_away("no engine")
    outside = job_pb2.SandboxSpec(fallback="allow")
    waiting = None
    for _ in range(2):
        assert (await rig.ended(await rig.submit(outside))).state == job_pb2.JOB_STATE_SUCCEEDED
        waiting = waiting or await rig.submit()
        assert (await rig.job(waiting)).state == job_pb2.JOB_STATE_PENDING
        await rig.stop_server()
        await rig.start_server()
    assert waiting is not None
    rig.offering.engine_away("")
    assert (await rig.ended(waiting)).attempt == 1


async def test_a_new_incarnation_ends_the_old_leases(rig: Rig) -> None:
    """The job of a dead agent-runner runs again on its successor at once."""
    await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="up", SCRIPT_SLEEP_S=LONG_S)
    await rig.wait_log(job_id, 2)
    rig.tasks.pop().cancel()
    await rig.start_agent(incarnation="2")
    job = await rig.ended(job_id)
    assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 2)
    assert job.attempts[0].end_reason == job_pb2.END_REASON_LOST


async def test_a_chatty_job_survives_the_server(rig: Rig) -> None:
    """The server is stopped again and again while bytes are on their way: one attempt, every byte once."""
    await rig.start_agent()
    job_id = await rig.submit(
        SCRIPT_OUTPUT="0123456789\n", SCRIPT_OUTPUT_REPEAT="3000", SCRIPT_OUTPUT_PAUSE_S="0.001"
    )
    for _ in range(5):
        length = len(await rig.log(job_id))
        await rig.wait_log(job_id, length + 200)
        await rig.stop_server()
        await rig.start_server()
    job = await rig.ended(job_id)
    assert (job.state, job.attempt) == (job_pb2.JOB_STATE_SUCCEEDED, 1)
    assert await rig.log(job_id) == b"0123456789\n" * 3000


async def test_the_next_start_delivers_what_a_dead_one_could_not(rig: Rig) -> None:
    """The server is away, the job ends, the agent-runner dies: its successor brings log and result, in the same attempt."""
    await rig.start_agent()
    job_id = await rig.submit(
        SCRIPT_OUTPUT="all of it\n", SCRIPT_SLEEP_S=LONG_S, SCRIPT_EXIT_CODE="4"
    )
    await rig.wait_log(job_id, 1)
    await rig.stop_server()
    (spool,) = (rig.root / "spool-a").iterdir()
    async with asyncio.timeout(DEADLINE_S):
        while spool.stat().st_size <= len("all of it\n"):
            await asyncio.sleep(0.01)
    rig.tasks.pop().cancel()
    await rig.start_server()
    await rig.start_agent(incarnation="2")
    job = await rig.ended(job_id)
    assert (job.state, job.exit_code, job.attempt) == (job_pb2.JOB_STATE_FAILED, 4, 1)
    assert await rig.log(job_id) == b"all of it\n"
    assert not list((rig.root / "spool-a").iterdir())


async def test_the_next_start_delivers_ends_without_a_log(rig: Rig) -> None:
    """The same for jobs that printed nothing, whose ends lie in one file: none is lost, none comes twice."""
    await rig.start_agent()
    first = await rig.submit()
    await rig.ended(first)
    ids = [await rig.submit(SCRIPT_SLEEP_S=LONG_S, SCRIPT_EXIT_CODE="4") for _ in range(2)]
    for job_id in ids:
        await rig.until(job_id, lambda job: job.state == job_pb2.JOB_STATE_RUNNING)
    await rig.stop_server()
    folder = rig.root / "spool-a"
    async with asyncio.timeout(DEADLINE_S):
        while sum(path.read_bytes().count(b'"EXITED"') for path in folder.iterdir()) < len(ids):
            await asyncio.sleep(0.01)
    assert len(list(folder.iterdir())) == 1
    rig.tasks.pop().cancel()
    await rig.start_server()
    await rig.start_agent(incarnation="2")
    for job_id in ids:
        job = await rig.ended(job_id)
        assert (job.state, job.exit_code, job.attempt) == (job_pb2.JOB_STATE_FAILED, 4, 1)
    assert len((await rig.job(first)).attempts) == 1
    assert not list(folder.iterdir())


async def test_no_leftover_waits_for_another(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that a dead agent-runner left, the first takes until the second is delivered."""
    await rig.start_agent()
    ids = [await rig.submit(SCRIPT_OUTPUT="x", SCRIPT_SLEEP_S=LONG_S) for _ in range(2)]
    for job_id in ids:
        await rig.wait_log(job_id, 1)
    await rig.stop_server()
    async with asyncio.timeout(DEADLINE_S):
        while any(spool.stat().st_size <= 1 for spool in (rig.root / "spool-a").iterdir()):
            await asyncio.sleep(0.01)
    rig.tasks.pop().cancel()
    await rig.start_server()
    finish, delivered = GrpcDaemonClient.finish, asyncio.Event()

    async def slow(client: GrpcDaemonClient, lease: Lease, *report: Any) -> None:
        if lease.job_id == min(ids):
            await delivered.wait()
        await finish(client, lease, *report)
        delivered.set()

    monkeypatch.setattr(GrpcDaemonClient, "finish", slow)
    await rig.start_agent(incarnation="2")
    assert [(await rig.ended(job_id)).attempt for job_id in ids] == [1, 1]


async def test_a_spool_that_cannot_be_made_fails_the_job_only(rig: Rig) -> None:
    """A disk that takes nothing is an end of the job that says so; the agent-runner lives on."""
    await rig.start_agent()
    folder = rig.root / "spool-a"
    folder.rename(rig.root / "gone")
    job = await rig.ended(await rig.submit())
    assert job.end_reason == job_pb2.END_REASON_SANDBOX_FAILED
    assert "disk" in job.message
    (rig.root / "gone").rename(folder)
    assert (await rig.ended(await rig.submit())).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_a_replaced_agent_runner_leaves(rig: Rig) -> None:
    """A later start with its name has taken over: it kills what it runs and goes."""
    await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="up", SCRIPT_SLEEP_S=LONG_S)
    await rig.wait_log(job_id, 2)
    first = rig.tasks.pop()
    await rig.start_agent(incarnation="2")
    await asyncio.wait_for(first, DEADLINE_S)
    assert (await rig.ended(job_id)).attempt == 2


async def test_a_sandbox_that_cannot_be_removed_costs_no_result(rig: Rig) -> None:
    """The clean-up fails, the report does not."""
    await rig.start_agent()
    job = await rig.ended(await rig.submit(SCRIPT_DESTROY_FAIL="1", SCRIPT_EXIT_CODE="6"))
    assert job.exit_code == 6


async def test_a_removal_that_takes_for_ever_costs_no_result(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the report has had no answer: it is repeated by a call, beside the removal."""

    def unanswered(*_: object, **__: object) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        answer.set_result(False)
        return answer

    await rig.start_agent()
    monkeypatch.setattr(GrpcDaemonClient, "report", unanswered)
    job = await rig.ended(await rig.submit(SCRIPT_DESTROY_S="600", SCRIPT_EXIT_CODE="6"))
    assert (job.exit_code, job.attempt) == (6, 1)


async def test_drain_lets_jobs_end(rig: Rig) -> None:
    """A draining agent-runner takes nothing new, finishes what runs, and leaves."""
    worker = await rig.start_agent(slots=1)
    running = await rig.submit(SCRIPT_OUTPUT="up", SCRIPT_SLEEP_S="0.3")
    await rig.wait_log(running, 2)
    worker.drain()
    waiting = await rig.submit()
    await asyncio.wait_for(rig.tasks[0], DEADLINE_S)
    assert (await rig.job(running)).state == job_pb2.JOB_STATE_SUCCEEDED
    assert (await rig.job(waiting)).state == job_pb2.JOB_STATE_PENDING


@pytest.mark.parametrize("leave", ["drain_over", "interrupt", "leave_now"])
async def test_an_interrupted_attempt_does_not_count(rig: Rig, leave: str) -> None:
    """However it leaves, what ran is given back and runs again."""
    worker = await rig.start_agent()
    job_id = await rig.submit(SCRIPT_OUTPUT="up", SCRIPT_SLEEP_S=LONG_S, SCRIPT_IGNORE_TERM="1")
    await rig.wait_log(job_id, 2)
    if leave == "drain_over":
        worker.drain()
        worker.interrupt(0)
    elif leave == "interrupt":
        worker.interrupt(0)
    else:
        worker.leave_now()
    await asyncio.wait_for(rig.tasks[0], DEADLINE_S)
    if leave != "leave_now":
        assert (await rig.job(job_id)).state == job_pb2.JOB_STATE_PENDING
    await rig.start_agent(incarnation="2")
    job = await rig.ended(job_id)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED
    assert job.attempt == 2


@pytest.mark.parametrize("leftover", [False, True])
async def test_a_wrong_token_is_final_at_the_start(rig: Rig, leftover: bool) -> None:
    """An agent-runner that was never welcome says why instead of trying for ever, and keeps what it has to deliver."""
    spools = rig.root / "spool-a"
    spools.mkdir()
    if leftover:
        spool = Spool.create(spools, Lease(job_id="job", attempt=1, token="token"))
        spool.write(b"said")
        spool.release()
    kept = [*spools.iterdir()]
    with pytest.raises(ServerRefusedError, match="UNAUTHENTICATED"):
        await rig.start_agent(token="wrong")
    rig.tasks.clear()
    assert [*spools.iterdir()] == kept
