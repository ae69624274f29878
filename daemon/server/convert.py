"""Jobs, attempts and events to protobuf and requests back: what only the server's end of the wire needs.

Called once or more per call, so each message is made by one constructor call; ``agent_runner.wire`` has the rest.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent_runner import wire
from daemon.errors import UsageError
from daemon.jobs.models import AgentIdentity, Attempt, Claim, Job, JobEvent, LeaseRef
from daemon.jobs.states import JobState
from runner.v1 import agent_service_pb2, job_pb2

MAX_IDENTITY_CHARS = 128

_STATE_TO_PB = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.name}") for state in JobState}
_STATE_FROM_PB: dict[int, JobState] = {number: state for state, number in _STATE_TO_PB.items()}


def job_to_pb(
    job: Job, attempts: Iterable[Attempt] = (), child_ids: Iterable[str] = ()
) -> job_pb2.Job:
    """Return the message of a job."""
    return job_pb2.Job(
        id=job.id,
        spec=wire.job_spec_to_pb(job.spec),
        state=_STATE_TO_PB[job.state],
        end_reason=wire.end_reason_to_pb(job.end_reason),
        exit_code=job.exit_code,
        message=job.message,
        attempt=job.attempt,
        create_time=wire.time_to_pb(job.create_us),
        start_time=wire.time_to_pb(job.start_us),
        end_time=wire.time_to_pb(job.end_us),
        attempts=[attempt_to_pb(attempt) for attempt in attempts],
        sandbox=wire.sandbox_to_pb(job.sandbox) if job.sandbox.kind else None,
        ready_time=wire.time_to_pb(job.ready_us),
        retry_of=job.retry_of,
        parent_id=job.parent_id,
        chain_depth=job.depth,
        child_ids=child_ids,
    )


def attempt_to_pb(attempt: Attempt) -> job_pb2.Attempt:
    """Return the message of an attempt. The lease token stays here."""
    return job_pb2.Attempt(
        number=attempt.number,
        state=_STATE_TO_PB[attempt.state],
        end_reason=wire.end_reason_to_pb(attempt.end_reason),
        exit_code=attempt.exit_code,
        message=attempt.message,
        agent=attempt.agent.name,
        start_time=wire.time_to_pb(attempt.start_us),
        end_time=wire.time_to_pb(attempt.end_us),
        sandbox=wire.sandbox_to_pb(attempt.sandbox) if attempt.sandbox.kind else None,
        source=wire.source_record_to_pb(attempt.source),
        log_bytes=attempt.log.length,
        log_sha256=attempt.log.sha256,
        log_truncated=attempt.log.truncated,
        outputs_error=attempt.outputs_error,
    )


def event_to_pb(event: JobEvent) -> job_pb2.JobEvent:
    """Return the message of a change."""
    return job_pb2.JobEvent(
        id=event.id,
        job_id=event.job_id,
        state=_STATE_TO_PB[event.state],
        end_reason=wire.end_reason_to_pb(event.end_reason),
        attempt=event.attempt,
        event_time=wire.time_to_pb(event.time_us),
        exit_code=event.exit_code,
    )


def assignment_to_pb(claim: Claim) -> agent_service_pb2.Assignment:
    """Return the message that gives an attempt to an agent-runner."""
    return agent_service_pb2.Assignment(
        lease=lease_to_pb(claim.lease), spec=wire.job_spec_to_pb(claim.spec)
    )


def lease_to_pb(lease: LeaseRef) -> agent_service_pb2.LeaseRef:
    """Return the message of a lease."""
    return wire.lease_to_pb(lease.job_id, lease.attempt, lease.lease_token)


def lease_from_pb(message: agent_service_pb2.LeaseRef) -> LeaseRef:
    """Return the lease that a message names, held or not."""
    return LeaseRef(job_id=message.job_id, attempt=message.attempt, lease_token=message.lease_token)


def agent_from_pb(message: agent_service_pb2.AgentIdentity) -> AgentIdentity:
    """Return the agent-runner that a message names.

    Raises:
        UsageError: It names none.
    """
    for field, text in (("name", message.name), ("incarnation", message.incarnation)):
        if not 0 < len(text) <= MAX_IDENTITY_CHARS:
            raise UsageError(f"agent.{field} must have 1 to {MAX_IDENTITY_CHARS} characters")
    return AgentIdentity(name=message.name, incarnation=message.incarnation)


def states_from_pb(numbers: Iterable[int]) -> frozenset[JobState]:
    """Return the states of a filter.

    Raises:
        UsageError: A number is no state.
    """
    try:
        return frozenset(_STATE_FROM_PB[number] for number in numbers)
    except KeyError as error:
        raise UsageError(f"states: {error.args[0]} is not the number of a job state") from None
