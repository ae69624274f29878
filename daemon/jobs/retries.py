"""Which attempts are followed by another one, and after how long; pure."""

from __future__ import annotations

from agent_runner.job_spec import FAILURES
from agent_runner.outcome import EndReason, Outcome
from daemon.jobs.models import MAX_LOSSES, Job

MAX_BACKOFF_US = 3_600_000_000
FIRST_ENGINE_WAIT_US = 1_000_000
"""An engine that restarts is back within seconds; three tries, each after four times the wait, last twenty."""
MAX_ENGINE_WAIT_US = 60_000_000


def may_retry(job: Job, outcome: Outcome) -> bool:
    """Tell whether a job is tried again after its attempt has failed by itself.

    Its ``retries`` must name the end and leave a try, and so must ``max_attempts``, if it is set.
    """
    retries = job.spec.retries
    if retries is None or job.failures >= retries.max or _used_up(job):
        return False
    if not retries.exit_codes and not retries.end_reasons:
        return outcome.end_reason in FAILURES
    if outcome.end_reason in retries.end_reasons:
        return True
    # The shell's number for a death by signal, 128 + N, is an exit code to those who write job files.
    coded = outcome.end_reason in (EndReason.EXITED, EndReason.SIGNALED)
    return coded and outcome.exit_code in retries.exit_codes


def losses_left(job: Job) -> bool:
    """Tell whether a job is run again after its attempt was lost, with its agent-runner or its container engine."""
    if job.spec.max_attempts:
        return not _used_up(job)
    return job.losses < MAX_LOSSES


def backoff_us(job: Job) -> int:
    """Return how long a job waits after its attempt has failed: twice as long after each failure, up to an hour."""
    retries = job.spec.retries
    if retries is None:
        return 0
    first_us = round(retries.backoff_s * 1_000_000)
    return int(min(first_us << job.failures, MAX_BACKOFF_US))


def engine_wait_us(job: Job) -> int:
    """Return how long a job waits after the container engine went away beneath its attempt."""
    return int(min(FIRST_ENGINE_WAIT_US << 2 * min(job.losses, 10), MAX_ENGINE_WAIT_US))


def _used_up(job: Job) -> bool:
    """Tell whether the attempt that has just ended is the last of ``max_attempts``."""
    counted = job.failures + job.losses + 1
    return 0 < job.spec.max_attempts <= counted
