"""One pure function turns the end of a command into the end of an attempt."""

from __future__ import annotations

import pytest

from agent_runner.attempt_control import StopReason
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason
from agent_runner.sandbox_spec import SandboxSpec
from agent_runner.verdict import command_end, early_end, sandbox_end
from sandbox.base import ExecResult
from sandbox.errors import (
    EngineGoneError,
    ImageMissingError,
    SandboxBrokenError,
    SandboxError,
    SandboxUnavailableError,
)
from sandbox.limits import Limit

SPEC = JobSpec(argv=("x",), timeout_s=5, idle_timeout_s=2, sandbox=SandboxSpec(memory_bytes=4096))


@pytest.mark.parametrize(
    ("result", "reason", "message"),
    [
        (ExecResult(exit_code=3), EndReason.EXITED, ""),
        (ExecResult(exit_code=137, signal=9), EndReason.SIGNALED, "ended by signal 9"),
        (ExecResult(exit_code=0, timed_out=True), EndReason.TIMED_OUT, "ran longer than 5 s"),
        (
            ExecResult(exit_code=0, idle_timed_out=True),
            EndReason.IDLE_TIMED_OUT,
            "printed nothing for 2 s",
        ),
        (
            ExecResult(exit_code=137, signal=9, exceeded=Limit.MEMORY),
            EndReason.OUT_OF_MEMORY,
            "needed more than the 4,096 bytes of memory it may have",
        ),
        (
            ExecResult(exit_code=0, exceeded=Limit.MEMORY),
            EndReason.OUT_OF_MEMORY,
            "needed more than the 4,096 bytes of memory it may have",
        ),
        (
            ExecResult(exit_code=137, signal=9, exceeded=Limit.DISK),
            EndReason.SIGNALED,
            "killed: used more of the disk than sandbox.disk allows",
        ),
        (
            ExecResult(exit_code=0, survivors=("1 x",)),
            EndReason.EXITED,
            "processes survived KILL: 1 x",
        ),
    ],
)
def test_what_came_first_decides(result: ExecResult, reason: EndReason, message: str) -> None:
    """A bound that was hit is the reason, whatever the exit code."""
    outcome = command_end(SPEC, result, None)
    assert (outcome.end_reason, outcome.exit_code) == (reason, result.exit_code)
    assert (outcome.message, outcome.interrupted) == (message, False)


@pytest.mark.parametrize(
    ("stop", "interrupted"), [(StopReason.CANCEL, False), (StopReason.INTERRUPT, True)]
)
def test_a_stopped_command_was_cancelled(stop: StopReason, *, interrupted: bool) -> None:
    """Only if the stop came before the end; an interruption does not count."""
    outcome = command_end(SPEC, ExecResult(exit_code=0, stopped=True), stop)
    assert (outcome.end_reason, outcome.interrupted) == (EndReason.CANCELLED, interrupted)
    assert early_end(SPEC, stop).interrupted == interrupted
    assert command_end(SPEC, ExecResult(exit_code=0), stop).end_reason is EndReason.EXITED


def test_a_bound_that_the_operator_set_has_no_number_in_the_job() -> None:
    """A container has a bound of memory whether the job names one or not."""
    outcome = command_end(
        JobSpec(argv=("x",)), ExecResult(exit_code=1, exceeded=Limit.MEMORY), None
    )
    assert outcome.message == "needed more than the memory it may have"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SandboxBrokenError("x"), EndReason.SANDBOX_FAILED),
        (SandboxUnavailableError("x"), EndReason.SANDBOX_FAILED),
        (ImageMissingError("x"), EndReason.IMAGE_MISSING),
        (EngineGoneError("x"), EndReason.ENGINE_GONE),
    ],
)
def test_a_sandbox_that_fails_says_how(error: SandboxError, reason: EndReason) -> None:
    """Each has its own reason; the message is the sandbox's."""
    assert (sandbox_end(error).end_reason, sandbox_end(error).message) == (reason, "x")


def test_a_preparation_can_time_out() -> None:
    """Without a stop there was no time left."""
    assert early_end(SPEC, None).end_reason is EndReason.TIMED_OUT
