"""What each happening does to a job: pure functions that both stores share, so that they cannot differ."""

from __future__ import annotations

from dataclasses import replace

from agent_runner.outcome import EndReason, Outcome
from daemon.errors import JobNotCancellableError
from daemon.jobs.models import MAX_LOSSES, Attempt, Job
from daemon.jobs.states import JobState, move

LOST_MESSAGE = "the agent-runner that ran it died or was out of reach for longer than the lease"
DROPPED_MESSAGE = "the agent-runner that ran it does not have it any more"
NOT_RECEIVED_MESSAGE = "the assignment did not reach the agent-runner"
INTERRUPTED_MESSAGE = "interrupted: the agent-runner was told to stop"


def started(job: Job, now_us: int) -> Job:
    """Return the job as a new attempt of it begins."""
    return replace(
        job, state=move(job.state, JobState.RUNNING), attempt=job.attempt + 1, start_us=now_us
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
        return replace(job, state=move(job.state, JobState.CANCELLING))
    return replace(
        job,
        state=move(job.state, JobState.CANCELLED),
        end_reason=EndReason.CANCELLED,
        end_us=now_us,
    )


def finished(job: Job, attempt: Attempt, outcome: Outcome, now_us: int) -> tuple[Job, Attempt]:
    """Return the job and its running attempt after the agent-runner reported the end."""
    if outcome.interrupted:
        return _interrupted(job, attempt, outcome, now_us)
    if outcome.succeeded:
        state = JobState.SUCCEEDED
    elif outcome.end_reason is EndReason.CANCELLED:
        state = JobState.CANCELLED
    else:
        state = JobState.FAILED
    ended = replace(
        job,
        state=move(job.state, state),
        end_reason=outcome.end_reason,
        exit_code=outcome.exit_code,
        message=outcome.message,
        sandbox=outcome.sandbox,
        end_us=now_us,
    )
    return ended, _ended_attempt(attempt, state, outcome, now_us)


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
        ended = replace(
            job,
            state=move(job.state, JobState.CANCELLED),
            end_reason=EndReason.CANCELLED,
            losses=losses,
            end_us=now_us,
        )
    elif losses > MAX_LOSSES:
        ended = replace(
            job,
            state=move(job.state, JobState.FAILED),
            end_reason=EndReason.LOST,
            message=message,
            losses=losses,
            end_us=now_us,
        )
    else:
        ended = replace(job, state=move(job.state, JobState.PENDING), losses=losses)
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
        ended = replace(
            job,
            state=move(job.state, JobState.CANCELLED),
            end_reason=EndReason.CANCELLED,
            end_us=now_us,
        )
        return ended, ended_attempt
    return replace(job, state=move(job.state, JobState.PENDING)), ended_attempt


def _ended_attempt(attempt: Attempt, state: JobState, outcome: Outcome, now_us: int) -> Attempt:
    return replace(
        attempt,
        state=state,
        end_us=now_us,
        end_reason=outcome.end_reason,
        exit_code=outcome.exit_code,
        message=outcome.message,
        sandbox=outcome.sandbox,
        log=outcome.log,
    )
