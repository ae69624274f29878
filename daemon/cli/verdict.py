"""Turns the end of a job into the exit code that a shell sees (DESIGN §11)."""

from __future__ import annotations

TIMED_OUT = 124
RUNNER_FAILED = 125
SECRET_MISSING = 8
CANCELLED = 130

_BY_REASON = {
    "TIMED_OUT": TIMED_OUT,
    "IDLE_TIMED_OUT": TIMED_OUT,
    "CANCELLED": CANCELLED,
    "LOST": RUNNER_FAILED,
    "SANDBOX_FAILED": RUNNER_FAILED,
    "IMAGE_MISSING": RUNNER_FAILED,
    "ENGINE_GONE": RUNNER_FAILED,
    "SOURCE_FAILED": RUNNER_FAILED,
    "SECRET_MISSING": SECRET_MISSING,
    "WORKFLOW_FAILED": 1,
}


def exit_status(end_reason: str | None, exit_code: int | None) -> int:
    """Return the command's own exit code, or the runner's where the command had no say."""
    if end_reason in _BY_REASON:
        return _BY_REASON[end_reason]
    return 1 if exit_code is None else exit_code


def describe(end_reason: str | None, exit_code: int | None, message: str) -> str:
    """Return the end in a few words for people."""
    if end_reason == "EXITED":
        return "succeeded" if exit_code == 0 else f"failed: exit code {exit_code}"
    word = (end_reason or "unknown").lower().replace("_", " ")
    return f"{word}: {message}" if message else word
