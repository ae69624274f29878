"""Projects on the wire: a token of one knows nothing of another's jobs, agent-runners and request ids."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from runner.v1 import agent_service_pb2 as agent_pb
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from tests.integration.grpc_server import Client, FakeAgent, next_events, refused

Code = grpc.StatusCode


async def listed(client: Client, project: str = "") -> list[str]:
    """Return the ids of all jobs that a token sees, newest first."""
    response = await client.jobs.ListJobs(pb.ListJobsRequest(project=project))
    return [job.id for job in response.jobs]


async def test_a_job_gets_the_project_of_the_token(client: Client):
    """Where it names none: the only one of a token, or the default one."""
    web = await client.issued("client", "web")
    several = await client.issued("client", "web", "shop")
    with_default = await client.issued("client", "web", "default")
    assert (await client.submit()).spec.project == "default"
    assert (await web.submit()).spec.project == "web"
    assert (await with_default.submit()).spec.project == "default"
    assert (await several.submit(project="shop")).spec.project == "shop"
    async with refused(Code.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await several.submit()
    request = pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=["true"]), project="web")
    assert (await several.jobs.SubmitJob(request)).job.spec.project == "web"


async def test_a_job_file_names_a_project(client: Client):
    """What the file says counts, and the request for a file that says nothing."""
    web = await client.issued("client", "web", "shop")
    for content, expected in ((b"command: x\nproject: shop", "shop"), (b"command: x", "web")):
        file = pb.JobFile(name="job.yaml", content=content)
        response = await web.jobs.SubmitJob(pb.SubmitJobRequest(job_file=file, project="web"))
        assert response.job.spec.project == expected


@pytest.mark.parametrize("project", ["shop", "default"])
async def test_a_foreign_project_takes_no_job(client: Client, project):
    """Neither alone nor in a batch, of which nothing is accepted."""
    web = await client.issued("client", "web")
    async with refused(Code.PERMISSION_DENIED, "PROJECT_NOT_ALLOWED"):
        await web.submit(project=project)
    requests = [
        pb.SubmitJobRequest(spec=job_pb2.JobSpec(argv=["true"], project=name))
        for name in ("web", project)
    ]
    async with refused(Code.PERMISSION_DENIED, "PROJECT_NOT_ALLOWED"):
        await web.jobs.SubmitJobs(pb.SubmitJobsRequest(requests=requests))
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_SPEC"):
        await client.submit(project="No/Name")
    assert await listed(client) == []


async def read_all(stream: Any) -> None:
    async for _ in stream:
        pass


async def test_a_foreign_job_does_not_exist(client: Client):
    """Every call that names it is answered as for a job that nobody has."""
    web, shop = await client.issued("client", "web"), await client.issued("client", "shop")
    foreign = (await shop.submit()).id
    own = (await web.submit()).id
    jobs = web.jobs
    calls = {
        "GetJob": lambda i: jobs.GetJob(pb.GetJobRequest(job_id=i)),
        "CancelJob": lambda i: jobs.CancelJob(pb.CancelJobRequest(job_id=i)),
        "RetryJob": lambda i: jobs.RetryJob(pb.RetryJobRequest(job_id=i)),
        "ExplainJob": lambda i: jobs.ExplainJob(pb.ExplainJobRequest(job_id=i)),
        "ListArtifacts": lambda i: jobs.ListArtifacts(pb.ListArtifactsRequest(job_id=i)),
        "ReadArtifact": lambda i: read_all(jobs.ReadArtifact(pb.ReadArtifactRequest(job_id=i))),
        "ReadLog": lambda i: read_all(jobs.ReadLog(pb.ReadLogRequest(job_id=i))),
        "WatchJobs": lambda i: read_all(jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[own, i]))),
    }
    named = {
        method.name
        for method in pb.DESCRIPTOR.services_by_name["JobService"].methods
        if {"job_id", "job_ids"} & {*method.input_type.fields_by_name}
    }
    assert named == {*calls}
    for name, call in calls.items():
        texts = set()
        for job_id in (foreign, "01nothing"):
            async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND") as refusal:
                await call(job_id)
            texts.add(refusal.text.replace(job_id, "ID"))
        assert len(texts) == 1, name
    assert (await shop.get(foreign)).state == job_pb2.JOB_STATE_PENDING
    async with refused(Code.INVALID_ARGUMENT, "INVALID_JOB_SPEC"):
        await web.submit(depends_on=[foreign])


async def test_lists_and_watches_hold_jobs_of_the_project_only(client: Client):
    """Those of an admin hold all, unless one is named."""
    web, shop = await client.issued("client", "web"), await client.issued("client", "shop")
    watch = web.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=0))
    mine, theirs, ours = [(await one.submit()).id for one in (web, shop, client)]
    last = (await web.submit()).id
    assert await listed(web) == [last, mine]
    assert await listed(shop) == [theirs]
    assert await listed(client) == [last, ours, theirs, mine]
    assert await listed(client, "web") == [last, mine]
    assert await listed(client, "default") == [ours]
    async with refused(Code.PERMISSION_DENIED, "PROJECT_NOT_ALLOWED"):
        await listed(web, "shop")
    assert [event.job_id for event in await next_events(watch, 2)] == [mine, last]


async def test_a_request_id_is_of_one_project(client: Client):
    """Else one project could tell which ids another has used, or use them up."""
    web, shop = await client.issued("client", "web"), await client.issued("client", "shop")
    ids = {
        (await one.submit(request_id="nightly")).id
        for one in (web, shop, client, web, shop, client)
    }
    assert len(ids) == 3
    async with refused(Code.ALREADY_EXISTS, "REQUEST_ID_REUSED") as refusal:
        await web.submit("false", request_id="nightly")
    assert "'nightly'" in refusal.text


async def test_a_retry_stays_in_its_project(client: Client):
    """And is repeated by its request id."""
    web = await client.issued("client", "web")
    old = (await web.submit()).id
    await web.cancel(old)
    request = pb.RetryJobRequest(job_id=old, request_id="again")
    retried = (await web.jobs.RetryJob(request)).job
    assert retried.spec.project == "web"
    assert (await web.jobs.RetryJob(request)).job.id == retried.id


async def test_an_agent_runner_gets_jobs_of_its_projects(client: Client):
    """All of its token's, or those that it names; another project's are never given to it."""
    both = await client.issued("agent", "web", "shop")
    all_of_both = await FakeAgent(both, "one", slots=10).connect()
    only_web = await FakeAgent(both, "two", slots=10, projects=("web",)).connect(draining=True)
    everything = await FakeAgent(client, "three", slots=10).connect(draining=True)
    web = (await client.submit(project="web")).id
    shop = (await client.submit(project="shop")).id
    other = (await client.submit(project="other")).id
    given = {(await all_of_both.assignment()).lease.job_id for _ in range(2)}
    assert given == {web, shop}
    assert (await client.get(other)).state == job_pb2.JOB_STATE_PENDING
    await only_web.call.done_writing()
    await everything.call.done_writing()

    async with refused(Code.PERMISSION_DENIED, "PROJECT_NOT_ALLOWED"):
        await FakeAgent(both, "four", projects=("other",)).register()
    everything = await FakeAgent(client, "three", slots=10).connect()
    assignment = await everything.assignment()
    assert (assignment.lease.job_id, assignment.spec.project) == (other, "other")


async def test_an_agent_runner_cannot_take_the_place_of_another_projects(client: Client):
    """One of the same name is another one: the leases of the first live on, and it is told nothing."""
    web, shop = await client.issued("agent", "web"), await client.issued("agent", "shop")
    first = await FakeAgent(web, "build").connect()
    job_id = (await client.submit(project="web")).id
    lease = (await first.assignment()).lease

    second = await FakeAgent(shop, "build", incarnation="other").connect(lease)

    name, lost = await second.next()
    assert (name, lost) == ("lost", lease)
    job = await client.get(job_id)
    assert job.state == job_pb2.JOB_STATE_RUNNING
    assert job.attempts[0].agent == "web/build"
    await first.finish(lease)
    assert (await client.get(job_id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_why_a_job_waits_names_nobody_elses(client: Client):
    """Not the jobs that hold the slots of a shared agent-runner, not their number, not agent-runners of others."""
    web = await client.issued("client", "web")
    await FakeAgent(await client.issued("agent", "shop"), "secret-agent").connect()
    job_id = (await web.submit()).id
    response = await web.jobs.ExplainJob(pb.ExplainJobRequest(job_id=job_id))
    assert "no agent-runner is connected" in response.summary
    assert "secret" not in str(response)

    shared = await FakeAgent(client, "shared", slots=1).connect(draining=True)
    await shared.call.done_writing()
    await client.cancel(job_id)
    await FakeAgent(client, "shared", incarnation="second", slots=1).connect()
    holder = (await client.submit(project="other", name="secret-release")).id
    job_id = (await web.submit()).id
    response = await web.jobs.ExplainJob(pb.ExplainJobRequest(job_id=job_id))
    assert "no free slot" in response.summary
    assert holder not in str(response)
    assert "secret" not in str(response)


async def test_reports_by_a_foreign_agent_change_nothing(client: Client):
    """It does not know the lease, and to guess is to be refused."""
    web = await client.issued("agent", "web")
    shop = FakeAgent(await client.issued("agent", "shop"), "shop")
    agent = await FakeAgent(web, "web").connect()
    job_id = (await client.submit(project="web")).id
    lease = (await agent.assignment()).lease
    guess = agent_pb.LeaseRef(job_id=job_id, attempt=1, lease_token="0" * len(lease.lease_token))
    async with refused(Code.ABORTED, "LEASE_LOST"):
        await shop.finish(guess)
    assert (await client.get(job_id)).state == job_pb2.JOB_STATE_RUNNING
