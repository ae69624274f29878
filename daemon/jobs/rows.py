"""Rows of the database to values and back. The order of columns here is the order in ``statements``."""

from __future__ import annotations

import json
from typing import Any

from agent_runner.job_spec import ConcurrencySpec
from agent_runner.outcome import EndReason, LogSummary, SandboxRecord, SourceRecord, limits_from
from daemon.errors import StoreUnusableError
from daemon.jobs.models import AgentIdentity, Attempt, Job, JobEvent, NewJob
from daemon.jobs.queue_keys import group_key, queue_key, workflow_key
from daemon.jobs.spec_text import decode_spec, encode_spec
from daemon.jobs.states import JobState

Row = tuple[Any, ...]

JOB_STATE_COLUMNS = (
    "state",
    "attempt",
    "losses",
    "failures",
    "hold",
    "ready_us",
    "backoff_us",
    "end_reason",
    "exit_code",
    "message",
    "start_us",
    "end_us",
    "sandbox_kind",
    "sandbox_tier",
    "walls_not_held",
    "sandbox_limits",
)
"""What changes in the life of a job; a read job has ``READ_COLUMNS`` before them."""

READ_COLUMNS = ("id", "create_us", "spec", "retry_of", "parent_id", "depth")
"""What never changes."""

NO_HOLD = 0
WALL_HOLD = 1
STEADY_HOLD = 2
GROUP_HOLD = 3
"""Why a PENDING job is not among those to claim: it waits for a moment on one of the clocks, or behind the best of its lane.

Only the best job of each lane of a concurrency group has ``NO_HOLD``, and only while the group has room; ``group_lanes``
sees to that.
"""

ATTEMPT_END_COLUMNS = (
    "state",
    "end_us",
    "end_reason",
    "exit_code",
    "message",
    "sandbox_kind",
    "sandbox_tier",
    "walls_not_held",
    "sandbox_limits",
    "source_commit",
    "ci_source_commit",
    "log_length",
    "log_sha256",
    "log_truncated",
    "outputs_error",
)
"""What the end of an attempt changes."""

ATTEMPT_COLUMNS = (
    "job_id",
    "number",
    "agent_name",
    "agent_incarnation",
    "lease_token",
    "start_us",
    "expire_us",
    "renew_us",
    *ATTEMPT_END_COLUMNS,
)

ARTIFACT_COLUMNS = ("job_id", "attempt", "name", "sha256", "size", "mode")

EVENT_COLUMNS = ("job_id", "state", "attempt", "time_us", "end_reason", "exit_code")
"""An event without its id, which the database gives."""


def new_job_values(new: NewJob, job: Job) -> Row:
    """Return what a job's row begins with, in the order of ``INSERT_JOB``."""
    spec = new.spec
    group = spec.concurrency
    labels = queue_key(spec)
    return (
        job.id,
        job.create_us,
        new.request_id,
        new.payload_sha256,
        encode_spec(spec),
        labels,
        spec.priority,
        new.retry_of,
        new.parent_id,
        new.depth,
        "" if spec.workflow is None else workflow_key(spec.project, spec.workflow.id),
        *((group_key(spec), lane_key(group, labels)) if group is not None else (None, None)),
        *job_state_values(job),
    )


def lane_key(group: ConcurrencySpec, labels: str) -> str:
    """Return what tells the lanes of a group apart: jobs of one lane have equal limits and labels."""
    return f"{group.limit:04d}{labels}"


def lane_limit(lane: str) -> int:
    """Return the limit of a lane's jobs."""
    return int(lane[:4])


def _hold(job: Job) -> int:
    if job.ready_us is not None:
        return STEADY_HOLD if job.backoff_us else WALL_HOLD
    grouped = job.state is JobState.PENDING and job.spec.concurrency is not None
    return GROUP_HOLD if grouped else NO_HOLD


def job_state_values(job: Job) -> Row:
    """Return the values of ``JOB_STATE_COLUMNS``."""
    return (
        job.state,
        job.attempt,
        job.losses,
        job.failures,
        _hold(job),
        job.ready_us,
        job.backoff_us,
        job.end_reason,
        job.exit_code,
        job.message,
        job.start_us,
        job.end_us,
        *_sandbox_values(job.sandbox),
    )


def job_from_row(row: Row) -> Job:
    """Return the job in a row of ``READ_COLUMNS`` and ``JOB_STATE_COLUMNS``.

    Raises:
        StoreUnusableError: The row is damaged.
    """
    job_id, create_us, spec, retry_of, parent_id, depth, *changing = row
    state, attempt, losses, failures, _, ready_us, *rest = changing
    backoff_us, reason, exit_code, message, start_us, end_us, *sandbox = rest
    try:
        return Job(
            id=job_id,
            create_us=create_us,
            spec=decode_spec(spec),
            state=JobState(state),
            attempt=attempt,
            losses=losses,
            failures=failures,
            ready_us=ready_us,
            backoff_us=backoff_us,
            retry_of=retry_of,
            parent_id=parent_id,
            depth=depth,
            end_reason=_reason(reason),
            exit_code=exit_code,
            message=message,
            start_us=start_us,
            end_us=end_us,
            sandbox=_sandbox(sandbox),
        )
    except (ValueError, TypeError, KeyError) as exc:
        raise StoreUnusableError(f"the stored job {job_id} is damaged: {exc}") from exc


def attempt_values(attempt: Attempt) -> Row:
    """Return the values of ``ATTEMPT_COLUMNS``."""
    return (
        attempt.job_id,
        attempt.number,
        attempt.agent.name,
        attempt.agent.incarnation,
        attempt.lease_token,
        attempt.start_us,
        attempt.expire_us,
        attempt.renew_us,
        *attempt_end_values(attempt),
    )


def attempt_end_values(attempt: Attempt) -> Row:
    """Return the values of ``ATTEMPT_END_COLUMNS``."""
    return (
        attempt.state,
        attempt.end_us,
        attempt.end_reason,
        attempt.exit_code,
        attempt.message,
        *_sandbox_values(attempt.sandbox),
        attempt.source.commit,
        attempt.source.ci_commit,
        attempt.log.length,
        attempt.log.sha256,
        attempt.log.truncated,
        attempt.outputs_error,
    )


def attempt_from_row(row: Row) -> Attempt:
    """Return the attempt in a row of ``ATTEMPT_COLUMNS``.

    Raises:
        StoreUnusableError: The row is damaged.
    """
    job_id, number, name, incarnation, lease_token, start_us, expire_us, renew_us, *end = row
    (
        state,
        end_us,
        reason,
        exit_code,
        message,
        *sandbox,
        commit,
        ci_commit,
        length,
        sha256,
        truncated,
        outputs_error,
    ) = end
    try:
        return Attempt(
            job_id=job_id,
            number=number,
            state=JobState(state),
            agent=AgentIdentity(name=name, incarnation=incarnation),
            lease_token=lease_token,
            start_us=start_us,
            expire_us=expire_us,
            renew_us=renew_us,
            end_us=end_us,
            end_reason=_reason(reason),
            exit_code=exit_code,
            message=message,
            sandbox=_sandbox(sandbox),
            source=SourceRecord(commit=commit, ci_commit=ci_commit),
            log=LogSummary(length=length, sha256=sha256, truncated=truncated),
            outputs_error=outputs_error,
        )
    except (ValueError, TypeError) as exc:
        raise StoreUnusableError(
            f"the stored attempt {number} of job {job_id} is damaged: {exc}"
        ) from exc


def event_values(job: Job, time_us: int) -> Row:
    """Return the values of ``EVENT_COLUMNS`` for a job that has just changed its state."""
    return (job.id, job.state, job.attempt, time_us, job.end_reason, job.exit_code)


def event_from_row(row: Row) -> JobEvent:
    """Return the event in a row of ``id`` and ``EVENT_COLUMNS``."""
    event_id, job_id, state, attempt, time_us, reason, exit_code = row
    return JobEvent(
        id=event_id,
        job_id=job_id,
        state=JobState(state),
        attempt=attempt,
        time_us=time_us,
        end_reason=_reason(reason),
        exit_code=exit_code,
    )


def _reason(name: str | None) -> EndReason | None:
    return None if name is None else EndReason(name)


def _sandbox_values(sandbox: SandboxRecord) -> Row:
    walls, limits = sandbox.walls_not_held, sandbox.limits
    return (
        sandbox.kind,
        sandbox.tier,
        json.dumps(walls) if walls else "[]",
        json.dumps(limits) if limits else "[]",
    )


def _sandbox(values: list[Any]) -> SandboxRecord:
    kind, tier, walls, limits = values
    return SandboxRecord(
        kind=kind,
        tier=tier,
        walls_not_held=() if walls == "[]" else tuple(json.loads(walls)),
        limits=() if limits == "[]" else limits_from(json.loads(limits)),
    )
