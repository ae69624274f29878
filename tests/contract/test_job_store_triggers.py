"""What every JobStore does with conditions, with jobs that follow an end, and with what jobs of one workflow pass on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from agent_runner.job_spec import RetryPolicy
from agent_runner.outcome import EndReason
from agent_runner.workflow_spec import ALWAYS, ANY_FAILED, WorkflowSpec
from daemon.jobs.models import NewJob, QueueChange
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

FAILURE = replace(SUCCESS, exit_code=1)
FLOW = WorkflowSpec(id="flow", vars_json='{"A": 1}')


def child(parent: str, *others: str, **fields: Any) -> NewJob:
    """Return a job that a parent triggers and that depends on it and on others."""
    job = new_job(depends_on=(parent, *others), **fields)
    return job._replace(parent_id=parent, depth=1)


def given(variables: dict[str, object], outputs: dict[str, object] | None = None) -> str:
    """Return what a job gives to its workflow."""
    return json.dumps({"vars": variables, "outputs": outputs or {}})


class TestConditions:
    @pytest.mark.parametrize(
        ("condition", "ends", "state"),
        [
            ("", (0, 0), JobState.PENDING),
            ("", (0, 1), JobState.FAILED),
            (ANY_FAILED, (0, 0), JobState.CANCELLED),
            (ANY_FAILED, (1, 0), JobState.PENDING),
            (ALWAYS, (1, 1), JobState.PENDING),
            (ALWAYS, (0, 0), JobState.PENDING),
        ],
    )
    @pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
    async def test_decides_when_all_have_ended(
        self, store: JobStore, *, condition: str, ends: tuple[int, int], state: JobState, late: bool
    ):
        """It is the same whether the job is submitted before or after the ends."""
        first, second = await submitted_one(store), await submitted_one(store)
        dependent = new_job(depends_on=(first, second), condition=condition)
        if not late:
            await store.submit([dependent])
        await finished(store, replace(SUCCESS, exit_code=ends[0]))
        if condition and not late:
            assert (await store.get(dependent.id)).state is JobState.BLOCKED
        await finished(store, replace(SUCCESS, exit_code=ends[1]))
        if late:
            await store.submit([dependent])

        job = await store.get(dependent.id)

        assert job.state is state
        assert (job.end_reason is EndReason.SKIPPED) == (state is JobState.CANCELLED)

    async def test_a_skipped_job_is_not_successful(self, store: JobStore):
        """What depends on a skipped job fails, unless its condition says otherwise."""
        first = await submitted_one(store)
        skipped = await submitted_one(store, depends_on=(first,), condition=ANY_FAILED)
        strict = await submitted_one(store, depends_on=(skipped,))
        notify = await submitted_one(store, depends_on=(skipped,), condition=ANY_FAILED)
        await finished(store)

        assert (await store.get(strict)).end_reason is EndReason.DEPENDENCY_FAILED
        assert await claimed_ids(store) == [notify]


class TestTriggeredJobs:
    async def test_come_with_the_end_and_once(self, store: JobStore):
        """They are accepted with the result; the same report again accepts nothing."""
        parent = await submitted_one(store)
        first = child(parent)
        second = child(parent, first.id, condition=ANY_FAILED)
        changes: list[QueueChange] = []
        store.listen(changes.append)
        (claim,) = await store.claim(OFFER, 1, LEASE_S)

        await store.finish(claim.lease, SUCCESS, [first, second])
        await store.finish(claim.lease, SUCCESS, [child(parent)])

        assert list(await store.children(parent)) == [first.id, second.id]
        jobs = [await store.get(job_id) for job_id in (first.id, second.id)]
        assert [(job.state, job.parent_id, job.depth) for job in jobs] == [
            (JobState.PENDING, parent, 1),
            (JobState.BLOCKED, parent, 1),
        ]
        (change,) = changes
        assert change.claimable
        assert [job.id for job in change.jobs] == [first.id, second.id]

    @pytest.mark.parametrize("outcome", ["interrupted", "cancelled", "retried"])
    async def test_do_not_come_with_another_end(self, store: JobStore, outcome: str):
        """An attempt that is repeated or was cancelled triggers nothing."""
        ends = {
            "interrupted": replace(FAILURE, end_reason=EndReason.CANCELLED, interrupted=True),
            "cancelled": replace(FAILURE, end_reason=EndReason.CANCELLED),
            "retried": FAILURE,
        }
        parent = await submitted_one(store, retries=RetryPolicy(max=1))
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        await store.finish(claim.lease, ends[outcome], [child(parent)])

        assert list(await store.children(parent)) == []

    async def test_fail_with_their_parent(self, store: JobStore):
        """A condition of theirs is about the end that accepted them."""
        parent = await submitted_one(store)
        jobs = [child(parent), child(parent, condition=ANY_FAILED)]
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        await store.finish(claim.lease, FAILURE, jobs)

        states = [(await store.get(job.id)).state for job in jobs]
        assert states == [JobState.FAILED, JobState.PENDING]


class TestWorkflowVariables:
    async def test_reach_jobs_that_start_later(self, store: JobStore):
        """They are merged into those of the beginning; outputs have the job's name before theirs."""
        await submitted_one(store, name="build", workflow=FLOW)
        await finished(store, replace(SUCCESS, workflow_output=given({"B": [2]}, {"tag": "v1"})))
        await submitted_one(store, name="deploy", workflow=FLOW)
        await submitted_one(store, name="other", workflow=replace(FLOW, id="other"))

        claims = await store.claim(OFFER, 2, LEASE_S)

        found = [json.loads(claim.spec.workflow.vars_json) for claim in claims]  # type: ignore[union-attr]
        assert found == [{"A": 1, "B": [2], "build.tag": "v1"}, {"A": 1}]

    async def test_are_bounded_together(self, store: JobStore):
        """What a job finds must fit into a variable of its environment."""
        report = replace(SUCCESS, workflow_output=given({}, {"o": "x" * 40_000}))
        await submitted_one(store, name="one", workflow=FLOW)
        await finished(store, report)
        await submitted_one(store, name="two", workflow=FLOW)
        ended = await finished(store, report)

        assert ended.end_reason is EndReason.WORKFLOW_FAILED
        assert "larger than 64 KiB" in ended.message

    async def test_two_values_of_one_variable_fail_the_second_job(self, store: JobStore):
        """Both jobs are named, nothing is triggered, and repeating the report is harmless."""
        await submitted_one(store, name="one", workflow=FLOW)
        await finished(store, replace(SUCCESS, workflow_output=given({"B": 1})))
        second = await submitted_one(store, name="two", workflow=FLOW)
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        report = replace(SUCCESS, workflow_output=given({"B": 2}))

        ended = await store.finish(claim.lease, report, [child(second)])

        assert (ended.state, ended.end_reason) == (JobState.FAILED, EndReason.WORKFLOW_FAILED)
        assert ended.message == "jobs one and two give the variable B different values"
        assert await store.finish(claim.lease, report) == ended
