"""What the end of a command means: pure, from statuses and the first lines to a result or an error.

The programs in front of a command write to the command's own stderr. Their lines are told apart by
two facts: they come first, and they come with a status that says that the command was not reached.
A command that forges such a line deceives nobody but itself.
"""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache

from sandbox.base import ExecRequest, ExecResult
from sandbox.errors import CommandNotStartedError, SandboxBrokenError, SandboxError
from sandbox.filesystem.call_list import Step
from sandbox.process import exit_code_of

NOT_FOUND = 127
NOT_EXECUTABLE = 126
EXEC_FAILED = 1
"""What bubblewrap ends with when it cannot execute the command."""
_LAUNCH_FAILURE = re.compile(
    rb"(?:bwrap: execvp|prlimit: failed to execute) (?P<name>.*): (?P<reason>[^\n]*)\n",
    re.DOTALL,
)
_LIMITS_FAILURE = re.compile(rb"prlimit: failed to set the [A-Z]+ resource limit: [^\n]*\n")
_MISSING = frozenset(os.strerror(number) for number in (errno.ENOENT, errno.ENOTDIR))
_EXHAUSTED = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this host has run out of is no property of the command."""
_KILLED = ExecResult(exit_code=137, signal=9)


@lru_cache(maxsize=16)  # for every command, and nearly all end alike
def result_of(exit_code: int) -> ExecResult:
    """Return the result of an exit status, as subprocess or as a shell reports it."""
    code, number = exit_code_of(exit_code)
    return ExecResult(exit_code=code, signal=number)


def not_started(name: str, reason: str) -> tuple[ExecResult, bytes]:
    """Return the result of a command that could not be executed, and the line that tells the user."""
    code = NOT_FOUND if reason in _MISSING else NOT_EXECUTABLE
    return ExecResult(exit_code=code), f"runner: cannot execute {name}: {reason}\n".encode()


def not_begun(
    step: Step, number: int, request: ExecRequest
) -> tuple[ExecResult, bytes] | SandboxError:
    """Return what it means that a step in front of a command failed: it is the request's doing, or the host's."""
    reason = os.strerror(number)
    if step is Step.DIRECTORY:
        return CommandNotStartedError(
            f"the working directory cannot be used: {request.cwd}: {reason}"
        )
    if step is Step.PROGRAM and number not in _EXHAUSTED:
        return not_started(request.argv[0], reason)
    return SandboxBrokenError(f"the command was not reached: {step.name.lower()}: {reason}")


def without_bubblewrap(
    step: Step, number: int, request: ExecRequest
) -> tuple[ExecResult, bytes] | SandboxError:
    """Return what it means that bubblewrap itself was not reached: only a command line that is too long is the job's."""
    if number == errno.E2BIG:
        return not_begun(step, number, request)
    return SandboxBrokenError(
        f"bubblewrap was not reached: {step.name.lower()}: {os.strerror(number)}"
    )


def limits_failure(exit_code: int, held: bytes) -> SandboxBrokenError | None:
    """Return the error of limits that prlimit(1) could not set: the command was not reached, and it is our doing."""
    if exit_code != EXEC_FAILED or _LIMITS_FAILURE.fullmatch(held) is None:
        return None
    return SandboxBrokenError(f"limits: {held.decode('utf-8', 'replace').strip()}")


def launch_failure(exit_code: int, held: bytes) -> tuple[ExecResult, bytes] | None:
    """Return what ``not_started`` does if a program in front reports that it could not execute the command."""
    match = _LAUNCH_FAILURE.fullmatch(held)
    if match is None or exit_code not in {EXEC_FAILED, NOT_EXECUTABLE, NOT_FOUND}:
        return None
    name, reason = (part.decode("utf-8", "replace") for part in match.group("name", "reason"))
    return not_started(name, reason)


def unreached(*, killed: bool, held: bytes) -> ExecResult | SandboxError:
    """Return what it means that bubblewrap ended without reaching the command."""
    if killed:
        return _KILLED
    said = held.decode("utf-8", "replace").strip()
    if said.startswith("bwrap: Can't chdir to "):
        return CommandNotStartedError(f"the working directory cannot be used: {said[7:]}")
    return SandboxBrokenError(f"bubblewrap failed before the command: {said or 'it said nothing'}")
