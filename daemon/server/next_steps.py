"""What happens next by itself to a job that runs, and how one that has ended did: pure functions, in words."""

from __future__ import annotations

from dataclasses import dataclass

from agent_runner.outcome import EndReason, Outcome
from daemon.jobs.models import MAX_LOSSES, Attempt, Job
from daemon.jobs.retries import backoff_us, losses_left, may_retry
from daemon.jobs.states import JobState
from daemon.server.words import count_of, span

CANCEL_GRACE_US = 10_000_000
"""Between TERM and KILL of a cancelled command (DESIGN §6)."""
_S = 1_000_000

_ENDS = {
    EndReason.SIGNALED: "was ended by a signal",
    EndReason.TIMED_OUT: "was stopped by its time-out",
    EndReason.IDLE_TIMED_OUT: "was stopped because it printed nothing for too long",
    EndReason.OUT_OF_MEMORY: "needed more memory than it may have",
    EndReason.LOST: "was lost with its agent-runner, and no attempt is left",
    EndReason.SOURCE_FAILED: "failed: its source could not be prepared",
    EndReason.SANDBOX_FAILED: "failed: its sandbox could not be made, or broke",
    EndReason.IMAGE_MISSING: "failed: the image of its container is neither here nor to be had",
    EndReason.ENGINE_GONE: "failed: the container engine did not answer, or went away",
    EndReason.SECRET_MISSING: "failed: a secret has no value here",
    EndReason.GATE_FAILED: "failed: a gate refused the result",
    EndReason.AGENT_FAILED: "failed: no coding agent could do the work",
    EndReason.DEPENDENCY_FAILED: "failed: a job that it depends on did not succeed",
    EndReason.SKIPPED: "was skipped",
    EndReason.WORKFLOW_FAILED: "failed: what it left for other jobs could not be accepted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """What happens next by itself, and when, on the wall clock."""

    text: str = ""
    time_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What is known of an attempt that runs; every time is on the wall clock."""

    connected: bool
    expire_us: int
    output_us: int | None
    cancel_us: int | None


def next_of_running(job: Job, attempt: Attempt, running: Running) -> NextStep:
    """Return the earliest thing that ends or moves an attempt if nobody does anything."""
    if not running.connected:
        return NextStep(text=_after_lease(job), time_us=running.expire_us)
    if job.state is JobState.CANCELLING:
        if running.cancel_us is None:
            return NextStep(text="its agent-runner kills what TERM has not ended")
        text = "its agent-runner kills (KILL) what TERM has not ended by then"
        return NextStep(text=text, time_us=running.cancel_us + CANCEL_GRACE_US)
    spec = job.spec
    bound_us = attempt.start_us + int(spec.timeout_s * _S)
    text = f"it is stopped for running longer than {span(int(spec.timeout_s * _S))}"
    steps = [(bound_us, text, EndReason.TIMED_OUT)]
    if spec.idle_timeout_s is not None:
        idle_us = int(spec.idle_timeout_s * _S)
        quiet_us = max(running.output_us or 0, attempt.start_us) + idle_us
        text = f"it is stopped if it prints nothing for {span(idle_us)}"
        steps.append((quiet_us, text, EndReason.IDLE_TIMED_OUT))
    time_us, text, end_reason = min(steps)
    if may_retry(job, Outcome(end_reason=end_reason)):
        text += f", and tried again after {span(backoff_us(job))}"
    return NextStep(text=text, time_us=time_us)


def end_sentence(job: Job, attempts: int) -> str:
    """Return how and why a job ended."""
    if job.state is JobState.SUCCEEDED:
        text = "succeeded"
    elif job.end_reason is EndReason.EXITED:
        text = f"failed: its command ended with exit code {job.exit_code}"
    elif job.end_reason is EndReason.CANCELLED:
        text = "was cancelled" if attempts else "was cancelled before it began"
    else:
        text = _ENDS.get(job.end_reason, "failed") if job.end_reason else "has ended"
    if job.message:
        text += f" ({job.message})"
    if job.start_us is not None and job.end_us is not None and attempts:
        text += f", after {span(job.end_us - job.start_us)}"
    return text + (f" in the last of {count_of(attempts, 'attempt')}" if attempts > 1 else "")


def _after_lease(job: Job) -> str:
    lost = "its agent-runner is not connected; if it does not come back its lease ends"
    if job.state is JobState.CANCELLING:
        return f"{lost} and the job is cancelled"
    if losses_left(job):
        bound = "" if job.spec.max_attempts else f" (loss {job.losses + 1} of {MAX_LOSSES})"
        return f"{lost} and the job is queued again{bound}"
    return f"{lost} and the job fails as LOST"
