"""What every JobStore does about projects: who is given a job, who sees it, and what jobs of one have to do with another's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import ConcurrencySpec
from agent_runner.workflow_spec import WorkflowSpec
from daemon.clock import FixedClock
from daemon.jobs import statements
from daemon.jobs.models import AgentOffer
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    SUCCESS,
    claimed_ids,
    finished,
    new_job,
    submitted_one,
)

PROJECTS = ("default", "web", "web-2", "a.b")


def offer(*projects: str, **labels: str) -> AgentOffer:
    return AgentOffer(agent=OFFER.agent, labels=labels, projects=frozenset(projects))


async def listed(store: JobStore, *projects: str, size: int = 100, **filters: object) -> list[str]:
    """Return the ids of all pages."""
    ids: list[str] = []
    token = ""
    while True:
        page = await store.list((), size, token, projects=projects, **filters)  # type: ignore[arg-type]
        ids += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            return ids


class TestClaim:
    @pytest.mark.parametrize("mine", PROJECTS)
    async def test_gives_jobs_of_the_offered_project_only(self, store: JobStore, mine: str):
        """Others stay where they are."""
        ids = {project: await submitted_one(store, project=project) for project in PROJECTS}
        assert await claimed_ids(store, offer(mine)) == [ids[mine]]
        assert await claimed_ids(store, offer("nobody")) == []

    async def test_gives_the_best_of_several_projects(self, store: JobStore):
        """Priority, then the submit, whatever the project."""
        first = await submitted_one(store, project="web", labels={"os": "linux"})
        second = await submitted_one(store, project="default")
        third = await submitted_one(store, project="web")
        best = await submitted_one(store, project="a.b", priority=1)
        await submitted_one(store, project="web-2", priority=5)

        wanted = offer("web", "default", "a.b", os="linux")
        assert await claimed_ids(store, wanted) == [best, first, second, third]

    async def test_gives_all_projects_to_an_offer_without_any(self, store: JobStore):
        """In the order of the submits."""
        ids = [await submitted_one(store, project=project) for project in PROJECTS]
        assert await claimed_ids(store, OFFER) == ids

    async def test_tests_each_set_where_an_offer_has_many_labels(self, store: JobStore):
        """The other way of finding jobs knows projects, too."""
        labels = {f"label{number}": "x" for number in range(8)}
        mine = await submitted_one(store, project="web", labels={"label1": "x"})
        await submitted_one(store, project="default", labels={"label1": "x"})
        await submitted_one(store, project="web", labels={"label1": "y"})
        assert await claimed_ids(store, offer("web", **labels)) == [mine]

    async def test_takes_many_projects(self, store: JobStore):
        """More than can be looked up one by one."""
        ids = [await submitted_one(store, project=f"p{number}") for number in range(300)]
        projects = [f"p{number}" for number in range(0, 300, 2)]
        assert await claimed_ids(store, offer(*projects, os="linux")) == ids[::2]


class TestGroups:
    async def test_a_group_is_of_one_project(self, store: JobStore):
        """Another project's jobs of a group of the same name run beside it, and are not named among the holders."""
        group = ConcurrencySpec(group="deploy", limit=1)
        ids = [
            await submitted_one(store, project=project, concurrency=group)
            for project in ("web", "default", "web")
        ]
        assert await claimed_ids(store, OFFER) == ids[:2]
        waits = await store.waits_on(ids[2])
        assert (waits.group, waits.group_holders) == ("deploy", (ids[0],))

    async def test_no_name_of_a_group_is_that_of_another_project(self, store: JobStore):
        """Not even one that looks like it inside."""
        first = await submitted_one(store, concurrency=ConcurrencySpec(group="web\ndeploy"))
        second = await submitted_one(
            store, project="web", concurrency=ConcurrencySpec(group="deploy")
        )
        third = await submitted_one(store, concurrency=ConcurrencySpec(group="deploy"))
        assert await claimed_ids(store, OFFER) == [first, second, third]


async def test_a_workflow_is_of_one_project(store: JobStore):
    """Its id is chosen by clients: jobs of another project that have it neither give nor get variables."""
    output = json.dumps({"vars": {"A": "1"}, "outputs": {}})
    workflow = WorkflowSpec(id="nightly")
    await submitted_one(store, project="web", workflow=workflow)
    await finished(store, replace(SUCCESS, workflow_output=output))
    for project, expected in (("default", {}), ("shop", {}), ("web", {"A": "1"})):
        await submitted_one(store, project=project, workflow=workflow)
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        assert claim.spec.workflow is not None
        assert json.loads(claim.spec.workflow.vars_json) == expected


class TestDependencies:
    async def test_a_job_of_another_project_is_not_known(self, store: JobStore):
        """The words are those for one that nobody has."""
        foreign = await submitted_one(store, project="web")
        texts = set()
        for job_id in (foreign, "nothing"):
            with pytest.raises(InvalidJobSpecError) as refused:
                await store.submit([new_job(depends_on=(job_id,), project="web-2")])
            texts.add(str(refused.value).replace(job_id, "ID"))
        assert len(texts) == 1

    async def test_a_job_of_the_same_project_is(self, store: JobStore):
        """It waits for it and goes on."""
        first = await submitted_one(store, project="web")
        second = await submitted_one(store, project="web", depends_on=(first,))
        await finished(store, offer=offer("web"))
        assert (await store.get(second)).state is JobState.PENDING


class TestList:
    @pytest.mark.parametrize("size", [1, 3, 100])
    async def test_keeps_jobs_of_some_projects(self, store: JobStore, size: int):
        """Newest first, over pages, with and without labels."""
        ids: dict[str, list[str]] = {project: [] for project in PROJECTS}
        for number in range(12):
            project = PROJECTS[number % 4]
            labels = {"os": "linux"} if number % 3 == 0 else {}
            ids[project].insert(0, await submitted_one(store, project=project, labels=labels))
        for project in PROJECTS:
            assert await listed(store, project, size=size) == ids[project]
        both = await listed(store, "web", "default", size=size)
        assert {*both} == {*ids["web"], *ids["default"]}
        assert both[:2] == [ids["web"][0], ids["default"][0]]
        assert await listed(store, size=size) == []
        labelled = await listed(store, "default", size=size, labels={"os": "linux"})
        assert len(labelled) == 1
        assert {*labelled} < {*ids["default"]}

    async def test_keeps_states_within_a_project(self, store: JobStore):
        """Both filters hold."""
        await submitted_one(store, project="web")
        await submitted_one(store)
        running = await claimed_ids(store, OFFER)
        await submitted_one(store, project="web")
        await submitted_one(store)
        for project, job_id in zip(("web", "default"), running, strict=True):
            page = await store.list([JobState.RUNNING], 10, "", projects=[project])
            assert [job.id for job in page.jobs] == [job_id]


async def test_tells_which_jobs_are_of_some_projects(store: JobStore):
    """What is not kept is of none."""
    web, default = await submitted_one(store, project="web"), await submitted_one(store)
    assert await store.in_projects([web, default, "nothing"], {"web"}) == {web}
    assert await store.in_projects([web, default], {"default", "web"}) == {web, default}


async def test_the_project_is_kept(store: JobStore):
    """As every field of a specification."""
    for project in PROJECTS:
        job_id = await submitted_one(store, project=project)
        assert (await store.get(job_id)).spec.project == project


async def test_the_first_text_from_some_on_is_one_jump(tmp_path: Path):
    """The statement that finds the projects of pending jobs reads one entry of the index."""
    store = SqliteJobStore(tmp_path / "jobs.db", FixedClock())
    await store.open()
    plan = store._read(f"EXPLAIN QUERY PLAN {statements.NEXT_PENDING_KEY}", ("",))
    await store.close()
    assert [row[-1] for row in plan] == ["SEARCH jobs USING INDEX jobs_pending (labels>?)"]
