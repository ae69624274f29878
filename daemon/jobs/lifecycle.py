"""What each happening does to a job: pure functions that both stores share, so that they cannot differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent_runner.outcome import EndReason, Outcome
from agent_runner.workflow_spec import ANY_FAILED
from daemon.errors import JobNotCancellableError
from daemon.jobs.models import Attempt, Job, NewJob
from daemon.jobs.retries import backoff_us, engine_wait_us, losses_left, may_retry
from daemon.jobs.states import JobState, move

LOST_MESSAGE = "the agent-runner that ran it died or was out of reach for longer than the lease"
DROPPED_MESSAGE = "the agent-runner that ran it does not have it any more"
NOT_RECEIVED_MESSAGE = "the assignment did not reach the agent-runner"
SKIPPED_MESSAGE = "none of the jobs that it depends on failed"
INTERRUPTED_MESSAGE = "interrupted: the agent-runner was told to stop"


def submitted(new: NewJob, dependencies: Mapping[str, JobState], now_us: int) -> Job:
    """Return a job as it begins.

    Args:
        new: Was asked for.
        dependencies: Holds the state of each job that it depends on.
        now_us: When.
    """
    job = Job(
        id=new.id,
        spec=new.spec,
        state=JobState.PENDING,
        create_us=now_us,
        retry_of=new.retry_of,
        parent_id=new.parent_id,
        depth=new.depth,
    )
    if not dependencies:
        return _queued(job, now_us)
    blocked = job._replace(state=JobState.BLOCKED)
    states = {job_id: dependencies[job_id] for job_id in new.spec.depends_on}
    for job_id, state in states.items():
        if fails(job, state):
            return dependency_failed(blocked, job_id, state, now_us)
    if all(state.final for state in states.values()):
        return released(blocked, states.values(), now_us)
    return blocked


def fails(job: Job, state: JobState) -> bool:
    """Tell whether a job cannot start any more because one that it depends on is in a state."""
    return not job.spec.condition and state.final and state is not JobState.SUCCEEDED


def released(job: Job, states: Iterable[JobState], now_us: int) -> Job:
    """Return a BLOCKED job after the last job that it depends on has ended, and none in a way that ``fails`` it.

    Args:
        job: Waited.
        states: Of all the jobs that it depends on.
        now_us: When.
    """
    if job.spec.condition == ANY_FAILED and set(states) <= {JobState.SUCCEEDED}:
        return job._replace(
            state=move(job.state, JobState.CANCELLED),
            end_reason=EndReason.SKIPPED,
            message=SKIPPED_MESSAGE,
            end_us=now_us,
        )
    return _queued(job._replace(state=move(job.state, JobState.PENDING)), now_us)


def dependency_failed(job: Job, failed_id: str, state: JobState, now_us: int) -> Job:
    """Return a BLOCKED job after one that it depends on has ended without success."""
    return job._replace(
        state=move(job.state, JobState.FAILED),
        end_reason=EndReason.DEPENDENCY_FAILED,
        message=f"job {failed_id}, on which it depends, ended as {state}",
        end_us=now_us,
    )


def _queued(job: Job, now_us: int) -> Job:
    not_before_us = job.spec.not_before_us
    if not_before_us is None or not_before_us <= now_us:
        return job
    return job._replace(ready_us=not_before_us)


def woken(job: Job) -> Job:
    """Return a waiting job after its moment has come."""
    return job._replace(ready_us=None, backoff_us=0)


def started(job: Job, now_us: int) -> Job:
    """Return the job as a new attempt of it begins."""
    return job._replace(
        state=move(job.state, JobState.RUNNING), attempt=job.attempt + 1, start_us=now_us
    )


def cancelled(job: Job, now_us: int) -> Job:
    """Return the job after a request to cancel it.

    Raises:
        JobNotCancellableError: It has ended.
    """
    if job.state.final:
        raise JobNotCancellableError(f"job {job.id} has already ended: {job.state}")
    if job.state is JobState.CANCELLING:
        return job
    if job.state is JobState.RUNNING:
        return job._replace(state=move(job.state, JobState.CANCELLING))
    return job._replace(
        state=move(job.state, JobState.CANCELLED),
        end_reason=EndReason.CANCELLED,
        ready_us=None,
        backoff_us=0,
        end_us=now_us,
    )


def finished(
    job: Job, attempt: Attempt, outcome: Outcome, now_us: int, steady_us: int
) -> tuple[Job, Attempt]:
    """Return the job and its running attempt after the agent-runner reported the end."""
    if outcome.interrupted:
        return _interrupted(job, attempt, outcome, now_us)
    if outcome.succeeded:
        state = JobState.SUCCEEDED
    elif outcome.end_reason is EndReason.CANCELLED:
        state = JobState.CANCELLED
    else:
        state = JobState.FAILED
    if state is JobState.FAILED and job.state is JobState.RUNNING and may_retry(job, outcome):
        again = _again(job, steady_us)
        return again, _ended_attempt(attempt, state, outcome, now_us)
    if (
        outcome.end_reason is EndReason.ENGINE_GONE
        and job.state is JobState.RUNNING
        and losses_left(job)
    ):
        again = _after_engine(job, steady_us)
        return again, _ended_attempt(attempt, state, outcome, now_us)
    ended = job._replace(
        state=move(job.state, state),
        end_reason=outcome.end_reason,
        exit_code=outcome.exit_code,
        message=outcome.message,
        sandbox=outcome.sandbox,
        end_us=now_us,
    )
    return ended, _ended_attempt(attempt, state, outcome, now_us)


def _after_engine(job: Job, steady_us: int) -> Job:
    """Return a job whose container went away with its engine: a loss, as one of the agent-runner is, that waits for the engine."""
    wait_us = engine_wait_us(job)
    return job._replace(
        state=move(job.state, JobState.PENDING),
        losses=job.losses + 1,
        ready_us=steady_us + wait_us,
        backoff_us=wait_us,
    )


def _again(job: Job, steady_us: int) -> Job:
    wait_us = backoff_us(job)
    return job._replace(
        state=move(job.state, JobState.PENDING),
        failures=job.failures + 1,
        ready_us=steady_us + wait_us if wait_us else None,
        backoff_us=wait_us,
    )


def given_back(job: Job, attempt: Attempt, now_us: int, *, begun: bool) -> tuple[Job, Attempt]:
    """Return the job and its running attempt after its agent-runner turned out not to have it.

    Args:
        job: Has the attempt.
        attempt: Is ended.
        now_us: When.
        begun: The attempt has left a trace, for example in its log, although it was never renewed.
    """
    if begun or attempt.renew_us is not None:
        return lost(job, attempt, now_us, DROPPED_MESSAGE)
    outcome = Outcome(
        end_reason=EndReason.CANCELLED, message=NOT_RECEIVED_MESSAGE, interrupted=True
    )
    return _interrupted(job, attempt, outcome, now_us)


def lost(
    job: Job, attempt: Attempt, now_us: int, message: str = LOST_MESSAGE
) -> tuple[Job, Attempt]:
    """Return the job and its running attempt after the lease ended without a report."""
    outcome = Outcome(
        end_reason=EndReason.LOST,
        message=message,
        log=replace(attempt.log, truncated="agent_died"),
        sandbox=attempt.sandbox,
    )
    ended_attempt = _ended_attempt(attempt, JobState.FAILED, outcome, now_us)
    losses = job.losses + 1
    if job.state is JobState.CANCELLING:
        ended = job._replace(
            state=move(job.state, JobState.CANCELLED),
            end_reason=EndReason.CANCELLED,
            losses=losses,
            end_us=now_us,
        )
    elif not losses_left(job):
        ended = job._replace(
            state=move(job.state, JobState.FAILED),
            end_reason=EndReason.LOST,
            message=message,
            losses=losses,
            end_us=now_us,
        )
    else:
        ended = job._replace(state=move(job.state, JobState.PENDING), losses=losses)
    return ended, ended_attempt


def _interrupted(job: Job, attempt: Attempt, outcome: Outcome, now_us: int) -> tuple[Job, Attempt]:
    # What the command made of being stopped is no end of its own.
    told = replace(
        outcome,
        end_reason=EndReason.CANCELLED,
        message=outcome.message or INTERRUPTED_MESSAGE,
    )
    ended_attempt = _ended_attempt(attempt, JobState.CANCELLED, told, now_us)
    if job.state is JobState.CANCELLING:
        ended = job._replace(
            state=move(job.state, JobState.CANCELLED),
            end_reason=EndReason.CANCELLED,
            end_us=now_us,
        )
        return ended, ended_attempt
    return job._replace(state=move(job.state, JobState.PENDING)), ended_attempt


def _ended_attempt(attempt: Attempt, state: JobState, outcome: Outcome, now_us: int) -> Attempt:
    return attempt._replace(
        state=state,
        end_us=now_us,
        end_reason=outcome.end_reason,
        exit_code=outcome.exit_code,
        message=outcome.message,
        sandbox=outcome.sandbox,
        source=outcome.source,
        log=outcome.log,
        outputs_error=outcome.outputs.error,
    )
