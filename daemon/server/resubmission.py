"""Submits a job again: what RetryJob makes of one that has ended."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from agent_runner.project_names import DEFAULT_PROJECT
from daemon.errors import DependencyFailedError, JobNotEndedError, JobNotFoundError
from daemon.jobs.ids import new_job_id
from daemon.jobs.models import Job, NewJob
from daemon.jobs.queue_keys import request_key
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from daemon.server.submission import checked_request_id


async def repeated_before(store: JobStore, job_id: str, request_id: str) -> Job | None:
    """Return what the same call made of the job before, if it did; called per RetryJob, before anything else is checked.

    What the call depends on may have changed since, up to the removal of the old job.

    Raises:
        RequestIdReusedError: The request id was used for something else.
        UsageError: The request id is malformed.
    """
    checked = checked_request_id(request_id)
    if checked is None:
        return None
    try:
        project = (await store.get(job_id)).spec.project
    except JobNotFoundError:
        project = DEFAULT_PROJECT
    key = request_key(project, checked)
    return await store.requested(key or checked, _payload_sha256(job_id))


async def repeated(store: JobStore, job_id: str, request_id: str) -> NewJob:
    """Return the job that repeats another one; called per RetryJob.

    It depends on the same jobs, but for those that have ended without success: in place of such a one stands its own
    newest repetition. What was removed since had succeeded if the old job ever began, and is left out.

    Raises:
        JobNotFoundError: No such job.
        JobNotEndedError: It has not ended.
        DependencyFailedError: It depends on one that did not succeed and was not repeated.
        UsageError: The request id is malformed.
    """
    checked = checked_request_id(request_id)
    old = await store.get(job_id)
    if not old.state.final:
        raise JobNotEndedError(f"job {job_id} has not ended: {old.state}; cancel it first")
    found = [*old.spec.depends_on]
    if not old.spec.condition:
        found = [await _dependency(store, old, other) for other in found]
    depends_on = tuple(dict.fromkeys(other for other in found if other))
    return NewJob(
        id=new_job_id(),
        spec=replace(old.spec, depends_on=depends_on),
        request_id=request_key(old.spec.project, checked),
        payload_sha256=_payload_sha256(job_id),
        retry_of=job_id,
        parent_id=old.parent_id,
        depth=old.depth,
    )


def _payload_sha256(job_id: str) -> str:
    # Of what is asked for, not of the outcome: the dependencies may be others at the next call.
    return hashlib.sha256(f"retry of {job_id}".encode()).hexdigest()


async def _dependency(store: JobStore, old: Job, job_id: str) -> str:
    """Return the job to depend on in place of one, or nothing."""
    try:
        job = await store.get(job_id)
    except JobNotFoundError:
        if old.attempt:
            return ""
        raise DependencyFailedError(
            f"job {old.id} depends on job {job_id}, which is not kept any more: submit it anew"
        ) from None
    while job.state.final and job.state is not JobState.SUCCEEDED:
        repetition = await store.newest_retry(job.id)
        if repetition is None:
            raise DependencyFailedError(
                f"job {old.id} depends on job {job.id}, which ended as {job.state}: retry that first"
            )
        job = repetition
    return job.id
