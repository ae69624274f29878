"""Jobs that jobs trigger, from the report of an agent-runner to the queue, over real sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2
from tests.integration.grpc_server import Client, FakeAgent

OK: dict[str, Any] = {"exit_code": 0}


def triggers(*jobs: dict[str, Any], files: dict[str, str] | None = None) -> agent_pb.Triggers:
    """Return a message of triggers."""
    return agent_pb.Triggers(
        document=json.dumps({"jobs": jobs}),
        files=[agent_pb.TriggerFile(name=n, content=c) for n, c in (files or {}).items()],
    )


async def parent_of(
    client: Client, agent: FakeAgent, *jobs: dict[str, Any], **fields: Any
) -> job_pb2.Job:
    """Run a job that triggers others, and return it after its end."""
    files, found = fields.pop("files", None), fields.pop("found", None)
    job = await client.submit(**fields)
    assignment = await agent.assignment()
    left = triggers(*jobs, files=files)
    await agent.finish(assignment.lease, b"", triggers=left, source=found, **OK)
    return await client.get(job.id)


async def test_come_with_the_end_and_run(client: Client):
    """They are queued at once; the parent names them and they name it; variables pass on."""
    agent = await FakeAgent(client).connect()
    parent = await parent_of(
        client,
        agent,
        {"job_name": "deploy", "job_command": "true", "env": {"A": "1"}, "depends_on": ["build"]},
        {
            "job_name": "tell",
            "job_command": "true",
            "depends_on": ["deploy", "build"],
            "inputs": ["build", "deploy"],
            "condition": "always",
        },
        name="build",
        labels={},
    )
    assignment = await agent.assignment()
    deploy = await client.get(assignment.lease.job_id)
    tell = await client.get(parent.child_ids[1])

    assert parent.state == job_pb2.JOB_STATE_SUCCEEDED
    assert list(parent.child_ids) == [deploy.id, tell.id]
    assert (deploy.parent_id, deploy.chain_depth, deploy.spec.name) == (parent.id, 1, "deploy")
    assert dict(deploy.spec.env) == {"A": "1"}
    waits_for = [deploy.id, parent.id]
    assert (tell.state, list(tell.spec.depends_on)) == (job_pb2.JOB_STATE_BLOCKED, waits_for)
    assert list(tell.spec.inputs) == ["build", "deploy"]
    assert tell.spec.workflow.id == deploy.spec.workflow.id

    output = json.dumps({"vars": {"V": 1}, "outputs": {"o": 2}})
    await agent.finish(assignment.lease, b"", workflow_output=output, exit_code=1)
    last = await agent.assignment()
    assert last.lease.job_id == tell.id
    assert json.loads(last.spec.workflow.vars_json) == {"V": 1, "deploy.o": 2}


async def test_take_a_job_file_and_what_their_parent_has(client: Client):
    """The file's fields, the document's over them, and the parent's sandbox, source and masking around both."""
    agent = await FakeAgent(client).connect()
    parent = await parent_of(
        client,
        agent,
        {"job_name": "d", "job_file": "jobs/d.yaml", "env": {"B": "2"}},
        files={
            "jobs/d.yaml": "command: make\nenv: {A: a, B: b}\nsandbox: {memory: 1GiB, network: on}\nmasking: off\n"
        },
        name="build",
        source=job_pb2.SourceSpec(kind="copy", path="/srv/x"),
        sandbox=job_pb2.SandboxSpec(min="bwrap", network="off"),
    )
    child = await client.get(parent.child_ids[0])

    assert list(child.spec.argv) == ["/bin/sh", "-c", "make"]
    assert dict(child.spec.env) == {"A": "a", "B": "2"}
    assert child.spec.source.path == "/srv/x"
    sandbox = child.spec.sandbox
    assert (sandbox.min, sandbox.network, sandbox.memory_bytes) == ("bwrap", "off", 1 << 30)
    assert child.spec.masking == ""


async def test_have_the_commit_of_their_parent(client: Client):
    """What a branch was resolved to for the parent, whatever is pushed meanwhile; who names a repository has its ref."""
    agent = await FakeAgent(client).connect()
    own = {"source_type": "git", "source_url": "https://h/app", "source_ref": "main"}
    parent = await parent_of(
        client,
        agent,
        {"job_name": "same", "job_command": "true"},
        {"job_name": "newest", "job_command": "true", **own},
        source=job_pb2.SourceSpec(kind="git", url="https://h/app", ref="main"),
        ci_source=job_pb2.SourceSpec(kind="git", url="https://h/ci"),
        found=job_pb2.SourceInfo(commit="a" * 40, ci_commit="b" * 40),
    )
    same, newest = [(await client.get(child)).spec for child in parent.child_ids]

    assert (same.source.url, same.source.ref, same.ci_source.ref) == (
        "https://h/app",
        "a" * 40,
        "b" * 40,
    )
    assert (newest.source.ref, newest.ci_source.ref) == ("main", "b" * 40)


REFUSED = [
    ({"env": {"T": "${secret:prod/db:PASSWORD}"}}, "which env of job build does not"),
    ({"source_type": "copy", "source_path": "/etc"}, "is not the folder that job build"),
    ({"source_type": "copy", "source_path": "sub"}, "is not the folder that job build"),
    ({"source_type": "git", "source_url": "file:///srv/other"}, "is neither a repository of job"),
    ({"source_type": "git", "source_url": "https://h/x"}, "is neither a repository of job build"),
    ({"source_type": "git", "source_url": "ext::sh -c id"}, "source_url"),
    ({"job_command": ["a", ""], "sandbox": {"min": "none"}}, "sandbox.min: must be one of"),
    ({"env": {"RUNNER_X": "1"}}, "env.RUNNER_X: is reserved"),
    ({"run_as_user": "root"}, "run_as.user: is not supported"),
    ({"resources": {"gpu": 1}}, "resources.gpu: unknown field"),
    ({"priority": 10**30}, "priority"),
    ({"job_file": "absent.yaml"}, "job_file: is missing"),
    ({"outputs": {"paths": ["x"], "max_files": 10**30}}, "triggers.json: jobs (bad)"),
    ({"retries": {"max": 10**30}}, "retries.max"),
    ({"sandbox": {"pids": 10**30}}, "sandbox.pids"),
]


@pytest.mark.parametrize(("fields", "problem"), REFUSED, ids=range(len(REFUSED)))
async def test_what_cannot_be_accepted_fails_the_parent(
    client: Client, fields: dict[str, Any], problem: str
):
    """The command's exit code stays; the end says what is wrong; nothing is triggered."""
    agent = await FakeAgent(client).connect()
    parent = await parent_of(
        client,
        agent,
        {"job_name": "good", "job_command": "true"},
        {"job_name": "bad", "job_command": "true", **fields},
        name="build",
        env={"T": "${secret:npm/x:TOKEN}"},
        source=job_pb2.SourceSpec(kind="copy", path="/srv/x"),
        sandbox=job_pb2.SandboxSpec(network="off"),
    )

    assert parent.state == job_pb2.JOB_STATE_FAILED
    assert parent.end_reason == job_pb2.END_REASON_WORKFLOW_FAILED
    assert parent.exit_code == 0
    assert parent.message.startswith("triggers.json: jobs (bad)")
    assert problem in parent.message
    assert list(parent.child_ids) == []


async def test_secrets_that_the_job_file_allows(client: Client):
    """A job may say which other secrets the jobs that it triggers may refer to."""
    agent = await FakeAgent(client).connect()
    env = {"T": "${secret:prod/db:PASSWORD}"}
    parent = await parent_of(
        client,
        agent,
        {"job_name": "deploy", "job_command": "true", "env": env},
        trigger_secrets=["prod/*:*"],
    )

    child = await client.get(parent.child_ids[0])
    assert dict(child.spec.env) == env
    assert list(child.spec.trigger_secrets) == ["prod/*:*"]


async def test_job_files_are_read_within_a_bound(client: Client):
    """A large file for many jobs is refused before it is parsed for each."""
    agent = await FakeAgent(client).connect()
    job = {"job_name": "x", "job_file": "x.yaml", "for_each": list(range(100))}
    content = "job_command: x\n" + "# " + "x" * 5000
    parent = await parent_of(client, agent, job, files={"x.yaml": content})

    assert "their job files are larger than 256 KiB" in parent.message


async def test_a_chain_of_triggers_ends(client: Client):
    """A job that triggers itself is stopped."""
    agent = await FakeAgent(client).connect()
    last_id = (await client.submit()).id
    for depth in range(11):
        assignment = await agent.assignment()
        last_id = assignment.lease.job_id
        assert (await client.get(last_id)).chain_depth == depth
        message = triggers({"job_name": "again", "job_command": "true"})
        await agent.finish(assignment.lease, b"", triggers=message, **OK)
    last = await client.get(last_id)

    assert last.end_reason == job_pb2.END_REASON_WORKFLOW_FAILED
    assert "10 jobs have triggered each other" in last.message
