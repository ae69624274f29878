"""Who may write for an attempt; shared by the stores, so that they cannot differ."""

from __future__ import annotations

import secrets

from agent_runner.outcome import EndReason, Outcome
from daemon.clock import Clock
from daemon.errors import LeaseLostError
from daemon.jobs.models import AgentIdentity, Attempt, Job, LeaseRef

MICROSECONDS = 1_000_000
TOKEN_BYTES = 16


def grant(job: Job, agent: AgentIdentity, now_us: int, expire_us: int) -> Attempt:
    """Return the attempt of a job that has just been started, with a fresh lease."""
    return Attempt(
        job_id=job.id,
        number=job.attempt,
        state=job.state,
        agent=agent,
        lease_token=secrets.token_urlsafe(TOKEN_BYTES),
        start_us=now_us,
        expire_us=expire_us,
    )


def is_held(lease: LeaseRef, attempt: Attempt | None) -> bool:
    """Tell whether ``lease`` is the right to ``attempt`` and nothing has ended it.

    A lease whose time is over is held until the reaper ends it: nobody else can have the job before.
    """
    return attempt is not None and attempt.lease == lease and attempt.state.leased


def ended_by(lease: LeaseRef, attempt: Attempt | None, outcome: Outcome) -> bool:
    """Tell whether this very report has ended the attempt before, so that repeating it is harmless."""
    # As `lifecycle.finished` records it.
    end_reason = EndReason.CANCELLED if outcome.interrupted else outcome.end_reason
    return (
        attempt is not None
        and attempt.lease == lease
        and not attempt.state.leased
        and attempt.end_reason is not EndReason.LOST  # the store's own verdict, reported by nobody
        and attempt.end_reason in (end_reason, EndReason.WORKFLOW_FAILED)
        and attempt.exit_code == outcome.exit_code
        and attempt.log.sha256 == outcome.log.sha256
    )


def lease_lost(lease: LeaseRef) -> LeaseLostError:
    """Return the error to raise for a lease that is not held. Never shows the token."""
    return LeaseLostError(
        f"the lease of attempt {lease.attempt} of job {lease.job_id} is not held any more: "
        "stop the attempt and drop its result"
    )


def expiry_us(clock: Clock, lease_s: float) -> int:
    """Return when a lease ends that is given or renewed at this moment."""
    return clock.steady_us() + int(lease_s * MICROSECONDS)
