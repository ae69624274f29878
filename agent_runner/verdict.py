"""What the end of a command means for its attempt: pure, and the only place that decides it."""

from __future__ import annotations

from agent_runner.attempt_control import StopReason
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, Outcome
from sandbox.base import ExecResult
from sandbox.errors import EngineGoneError, ImageMissingError, SandboxError
from sandbox.limits import Limit

NO_SLOT = "no slot of the agent-runner was free in time"

_REASONS: dict[type[SandboxError], EndReason] = {
    ImageMissingError: EndReason.IMAGE_MISSING,
    EngineGoneError: EndReason.ENGINE_GONE,
}


def command_end(spec: JobSpec, result: ExecResult, stop: StopReason | None) -> Outcome:
    """Return how an attempt ended whose command has ended.

    What came first decides, whatever the exit code says: many programs exit with 0 on TERM without having done their
    work, and one that lost a process to the memory bound may exit with anything, 137 or 0.

    Args:
        spec: What was asked for.
        result: How the command ended.
        stop: Why the attempt had to end early, if it had to.
    """
    survivors = ""
    if result.survivors:
        survivors = f"processes survived KILL: {', '.join(result.survivors)}"
    if result.stopped and stop is not None:
        reason, message = EndReason.CANCELLED, survivors
    elif result.timed_out:
        reason, message = EndReason.TIMED_OUT, _too_long(spec)
    elif result.idle_timed_out:
        reason = EndReason.IDLE_TIMED_OUT
        message = f"printed nothing for {spec.idle_timeout_s or 0:g} s"
    elif result.exceeded is Limit.MEMORY:
        reason = EndReason.OUT_OF_MEMORY
        bound = (
            f"the {spec.sandbox.memory_bytes:,} bytes of" if spec.sandbox.memory_bytes else "the"
        )
        message = f"needed more than {bound} memory it may have"
    elif result.exceeded is not None:
        reason = EndReason.SIGNALED
        message = (
            f"killed: used more of the {result.exceeded} than sandbox.{result.exceeded} allows"
        )
    elif result.signal is not None:
        reason, message = EndReason.SIGNALED, survivors or f"ended by signal {result.signal}"
    else:
        reason, message = EndReason.EXITED, survivors or _planted(result)
    interrupted = reason is EndReason.CANCELLED and stop is not StopReason.CANCEL
    return Outcome(
        end_reason=reason, exit_code=result.exit_code, message=message, interrupted=interrupted
    )


def early_end(spec: JobSpec, stop: StopReason | None) -> Outcome:
    """Return how an attempt ended that had no command yet: it was stopped, or its preparation took all of its time."""
    if stop is None:
        return Outcome(end_reason=EndReason.TIMED_OUT, message=_too_long(spec))
    if stop is StopReason.RETURN:
        return Outcome(
            end_reason=EndReason.CANCELLED, interrupted=True, returned=True, message=NO_SLOT
        )
    return Outcome(end_reason=EndReason.CANCELLED, interrupted=stop is not StopReason.CANCEL)


def _planted(result: ExecResult) -> str:
    return (
        f"new in a checkout, and run by others: {', '.join(result.planted)}"
        if result.planted
        else ""
    )


def sandbox_end(error: SandboxError) -> Outcome:
    """Return how an attempt ended whose sandbox could not be made, or broke."""
    reason = _REASONS.get(type(error), EndReason.SANDBOX_FAILED)
    return Outcome(end_reason=reason, message=str(error))


def _too_long(spec: JobSpec) -> str:
    return f"ran longer than {spec.timeout_s:g} s"
