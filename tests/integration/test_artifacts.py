"""Outputs over the wire: contents by digest under a lease, their end, and reading them back."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import grpc
import pytest

from daemon.artifacts.blob_store import GRACE_S
from daemon.server.retention import Retention
from daemon.server.retention_limits import RetentionLimits
from daemon.server.signals import Signals
from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import DEADLINE_S, Client, FakeAgent, refused

Code = grpc.StatusCode
CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def artifact(name: str = "dist/x", **fields: Any) -> job_pb2.Artifact:
    values: dict[str, Any] = {"sha256": SHA256, "size_bytes": len(CONTENT), "mode": 0o755}
    return job_pb2.Artifact(name=name, **(values | fields))


def pieces(content: bytes = CONTENT) -> list[agent_pb.UploadArtifactRequest]:
    sha256 = hashlib.sha256(content).hexdigest()
    first = agent_pb.UploadArtifactRequest(
        sha256=sha256, size_bytes=len(content), data=content[:1000]
    )
    return [first, agent_pb.UploadArtifactRequest(data=content[1000:])]


async def upload(
    client: Client, lease: agent_pb.LeaseRef, *messages: agent_pb.UploadArtifactRequest
) -> list[agent_pb.UploadArtifactResponse]:
    """Say hello with the digest of the content, then the messages; return all answers."""

    call = client.agents.UploadArtifact()
    async with asyncio.timeout(DEADLINE_S):
        await call.write(agent_pb.UploadArtifactRequest(lease=lease, digests=[SHA256]))
        # Read before more is sent: grpc.aio makes INTERNAL of whatever a call had ended with, if a write meets its end.
        answers = [await call.read()]
        for message in messages:
            await call.write(message)
        await call.done_writing()
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(answer)
        return answers


async def running(client: Client) -> tuple[FakeAgent, agent_pb.LeaseRef]:
    agent = await FakeAgent(client).connect()
    await client.submit()
    return agent, (await agent.assignment()).lease


async def listed(client: Client, job_id: str, **fields) -> pb.ListArtifactsResponse:
    request = pb.ListArtifactsRequest(job_id=job_id, **fields)
    response: pb.ListArtifactsResponse = await client.jobs.ListArtifacts(request)
    return response


async def content(client: Client, job_id: str, name: str = "dist/x", **fields) -> bytes:
    request = pb.ReadArtifactRequest(job_id=job_id, name=name, **fields)
    async with asyncio.timeout(DEADLINE_S):
        return b"".join([piece.data async for piece in client.jobs.ReadArtifact(request)])


async def test_uploaded_listed_read(client: Client):
    """What the server has is not asked for again; a reader may begin anywhere."""
    agent, lease = await running(client)

    answers = await upload(client, lease, *pieces())
    again = await upload(client, lease)
    await agent.finish(lease, outputs=[artifact("b"), artifact()], outputs_error="c: is a link")

    assert [*answers[0].missing] == [SHA256]
    assert answers[1].stored == SHA256
    assert [[*answer.missing] for answer in again] == [[]]
    found = await listed(client, lease.job_id)
    assert (found.attempt, [*found.artifacts]) == (1, [artifact("b"), artifact()])
    assert found.outputs_error == "c: is a link"
    assert (await client.get(lease.job_id)).attempts[0].outputs_error == "c: is a link"
    assert await content(client, lease.job_id) == CONTENT
    assert await content(client, lease.job_id, offset=1_000_000) == CONTENT[1_000_000:]


async def finished_with(client: Client, agent: FakeAgent, name: str, **outputs: bytes) -> str:
    """Run a job that leaves files of these contents; return its id."""
    job = await client.submit(name=name)
    lease = (await agent.assignment()).lease
    for content in outputs.values():
        await upload(client, lease, *pieces(content))
    files = [
        artifact(file, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        for file, content in outputs.items()
    ]
    await agent.finish(lease, outputs=files)
    return str(job.id)


async def inputs_of(client: Client, lease: agent_pb.LeaseRef) -> list[agent_pb.ReadInputsResponse]:
    request = agent_pb.ReadInputsRequest(lease=lease)
    async with asyncio.timeout(DEADLINE_S):
        return [piece async for piece in client.agents.ReadInputs(request)]


async def test_outputs_of_a_job_are_inputs_of_one_that_follows_it(client: Client):
    """Of those that it names, by name or id; one that left nothing is told too."""
    agent = await FakeAgent(client).connect()
    build = await finished_with(client, agent, "build", a=b"x" * 1001, b=CONTENT)
    other = await client.submit(name="other")
    await agent.finish((await agent.assignment()).lease)
    await client.submit(depends_on=[build, other.id], inputs=[other.id, "build"])
    lease = (await agent.assignment()).lease

    answers = await inputs_of(client, lease)

    told = [answer.job_name or answer.artifact.name for answer in answers]
    assert list(filter(None, told)) == ["other", "build", "a", "b"]
    assert b"".join(answer.data for answer in answers) == b"x" * 1001 + CONTENT
    await agent.finish(lease)
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await inputs_of(client, lease)


async def test_an_input_that_there_is_not_is_named(client: Client):
    """Of no job that it does not depend on, whatever its id; and two of one name are none."""
    agent = await FakeAgent(client).connect()
    build = await finished_with(client, agent, "build", a=b"x" * 1001)
    twin = await finished_with(client, agent, "build", a=b"y" * 1001)
    secret = await client.submit(name="secret", labels={"no": "agent"})
    for depends_on, wanted in (([build], secret.id), ([build, twin], "build"), ([build], "biuld")):
        await client.submit(depends_on=depends_on, inputs=[wanted])
        lease = (await agent.assignment()).lease
        async with refused(Code.FAILED_PRECONDITION, "INPUT_MISSING") as refusal:
            await inputs_of(client, lease)
        assert f"called {wanted!r}" in refusal.text
        await agent.finish(lease)


async def test_an_end_without_the_contents_is_refused(client: Client):
    """The attempt goes on, and ends once they are there."""
    agent, lease = await running(client)

    async with refused(Code.FAILED_PRECONDITION, "ARTIFACT_MISSING"):
        await agent.finish(lease, outputs=[artifact()])
    await upload(client, lease, *pieces())
    await agent.finish(lease, outputs=[artifact()])

    assert (await client.get(lease.job_id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_only_the_holder_of_a_lease_stores(client: Client):
    agent, lease = await running(client)
    stale = agent_pb.LeaseRef(job_id=lease.job_id, attempt=1, lease_token="x")

    async with refused(Code.ABORTED, "LEASE_LOST"):
        await upload(client, stale, *pieces())
    await agent.finish(lease)
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await upload(client, lease, *pieces())


@pytest.mark.parametrize(
    "messages",
    [
        [agent_pb.UploadArtifactRequest(data=b"1")],
        [pieces()[0], pieces()[0]],
        [agent_pb.UploadArtifactRequest(sha256=SHA256, size_bytes=1, data=b"x")],
        [agent_pb.UploadArtifactRequest(sha256=SHA256, size_bytes=1, data=b"xy")],
        [agent_pb.UploadArtifactRequest(sha256="../x", size_bytes=1, data=b"x")],
        [agent_pb.UploadArtifactRequest(sha256=SHA256, size_bytes=-1)],
        [agent_pb.UploadArtifactRequest(sha256=SHA256, size_bytes=1 << 21, data=b"x" * (2 << 20))],
    ],
)
async def test_malformed_uploads_leave_nothing(client: Client, messages):
    _, lease = await running(client)

    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await upload(client, lease, *messages)
    assert [path for path in client.config.artifact_dir.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "outputs",
    [
        [artifact("../x")],
        [artifact("/x")],
        [artifact("a//b")],
        [artifact("")],
        [artifact(".")],
        [artifact("a\0")],
        [artifact("n" * 513)],
        [artifact(), artifact()],
        [artifact(sha256="A" * 64)],
        [artifact(size_bytes=-1)],
        [artifact(mode=0o4755)],
    ],
)
async def test_impossible_outputs_are_refused(client: Client, outputs):
    """Files are made by these names later."""
    agent, lease = await running(client)

    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await agent.finish(lease, outputs=outputs)


async def test_what_does_not_exist(client: Client):
    agent, lease = await running(client)
    job_id = lease.job_id

    assert (await listed(client, job_id)).artifacts == []
    async with refused(Code.NOT_FOUND, "ARTIFACT_NOT_FOUND"):
        await content(client, job_id)
    async with refused(Code.NOT_FOUND, "ATTEMPT_NOT_FOUND"):
        await listed(client, job_id, attempt=2)
    async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND"):
        await listed(client, "nojob")
    await agent.finish(lease)


async def test_contents_go_after_the_last_job_that_has_them(client: Client):
    """And not before they have rested, because an attempt that is about to end may have found them here."""
    agent, lease = await running(client)
    await upload(client, lease, *pieces())
    await agent.finish(lease, outputs=[artifact()])
    path = client.config.artifact_dir / "projects" / "default" / SHA256[:2] / SHA256
    await client.submit()
    limits = RetentionLimits(max_jobs=1, max_age_days=0, max_log_bytes=1)

    async def sweep() -> None:
        server = client.server
        await Retention(
            store=client.store,
            logs=server._logs,
            blobs=server._blobs,
            signals=Signals(),
            clock=client.clock,
            limits=limits,
        ).sweep()

    now_s = client.clock.now_us() / 1e6
    os.utime(path, (now_s, now_s))
    await sweep()
    assert path.exists()
    os.utime(path, (now_s, now_s - GRACE_S - 1))
    await sweep()
    assert not path.exists()
