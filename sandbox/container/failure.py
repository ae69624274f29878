"""What an answer of the engine means: pure, and the only place that decides it.

Docker says much in words only. Every pattern below is matched here, on the message of one known operation, so
that a new wording is one line and one test.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from sandbox.base import ExecResult
from sandbox.errors import (
    CommandNotStartedError,
    EngineGoneError,
    EngineUnusableError,
    ImageMissingError,
    SandboxBrokenError,
    SandboxError,
    TransferRefusedError,
)
from sandbox.limits import Limit
from sandbox.process import exit_code_of

_REFUSED_TREE = (
    "cannot overwrite",
    "not a directory",
    "is a directory",
    "read-only",
    "file exists",
)
_CHANGES = (
    "could not find the file",
    "no such file",
    "not a directory",
    "too many levels of symbolic links",
    "invalid argument",  # of readlink: a link a moment ago, now a folder
)
"""What the engine says of a path that a job changes between two of its looks."""
_NO_SHELL = ("exec /bin/sh failed", "failed to exec pid1")
"""In the words of the init of Docker, and of that of Podman."""
_OVER = "container state improper"
"""In the words of Podman, in which the end of a container comes in between."""
_KILLED = 137


class Operation(enum.StrEnum):
    """What was asked of the engine, in the words of an error message."""

    ASK = "answer"
    CREATE = "make a container"
    START = "start a container"
    ATTACH = "attach to a container"
    WAIT = "wait for a container"
    KILL = "signal a container"
    REMOVE = "remove a container"
    PULL = "fetch an image"
    INSPECT_IMAGE = "find an image"
    COPY_IN = "take files"
    COPY_OUT = "give files"


_ERROR_NUMBER = re.compile(r"\[Errno -?[0-9]+\] ")
"""How Python begins the words of the system, for people who write Python."""
_HERE_NOT = ("no such image", "invalid reference format")
_NOWHERE = (*_HERE_NOT, "not found", "manifest unknown", "pull access denied")
_ABSENT_IMAGE = {
    Operation.CREATE: _HERE_NOT,  # much else can be not found then
    Operation.INSPECT_IMAGE: _NOWHERE,
    Operation.PULL: _NOWHERE,
}
_BEFORE_START = frozenset(
    {
        Operation.CREATE,
        Operation.ATTACH,
        Operation.PULL,
        Operation.INSPECT_IMAGE,
        Operation.COPY_IN,
    }
)
"""What is asked before the command of an attempt can run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnd:
    """All that is known of a command whose container has ended."""

    exit_code: int
    oom_killed: bool = False
    engine_error: str = ""
    """Why the engine could not start it, or lost it."""
    started: bool = True
    """Whether the launcher said that the command is next."""
    said: str = ""
    """What init and launcher said, which the command cannot."""
    killed: bool = False
    """Whether KILL was sent by us."""


def classify(
    operation: Operation, status: int | None, message: str, subject: str = ""
) -> SandboxError:
    """Return the error for an answer that is no success.

    Args:
        operation: What was asked.
        status: Of the HTTP answer; None if there was none.
        message: What the engine, or the connection, said.
        subject: The image or path it was about.
    """
    error = _error_for(operation, status, message, subject)
    # Without an answer to a start nobody knows whether the engine did it.
    certain = operation in _BEFORE_START or (operation is Operation.START and status is not None)
    error.never_began = certain and not isinstance(error, TransferRefusedError)
    return error


def has_ended(message: str) -> bool:
    """Tell whether an engine failed only because a container does not run any more. Pure."""
    return _OVER in message


def failed_before_command(error: SandboxError, *, exec_asked: bool) -> bool:
    """Tell whether an engine or an image failed before the command of an attempt can have begun. Pure.

    Args:
        error: What ended the attempt in a container.
        exec_asked: Whether the sandbox had been asked to start the command.
    """
    if error.never_began or exec_asked:
        return error.never_began
    return isinstance(error, EngineUnusableError | ImageMissingError | SandboxBrokenError)


def _error_for(
    operation: Operation, status: int | None, message: str, subject: str
) -> SandboxError:
    if status is None:
        said = _ERROR_NUMBER.sub("", message)
        return EngineGoneError(f"the container engine did not {operation}: {said}")
    text = message.lower()
    if any(sign in text for sign in _ABSENT_IMAGE.get(operation, ())):
        return ImageMissingError(f"there is no image {subject}: {message}")
    if operation is Operation.COPY_OUT and any(sign in text for sign in _CHANGES):
        return TransferRefusedError(f"{subject}: {message}")
    if operation is Operation.COPY_IN and any(sign in text for sign in _REFUSED_TREE):
        return TransferRefusedError(f"{subject}: {message}")
    about = f" {subject}" if subject else ""
    return SandboxBrokenError(
        f"the container engine did not {operation}{about} ({status}): {message}"
    )


def _never_began(error: SandboxError) -> SandboxError:
    error.never_began = True
    return error


def conclude(end: ContainerEnd) -> ExecResult | SandboxError:
    """Return how a command ended, or why it never began."""
    if end.engine_error and not end.started:
        return _never_began(
            SandboxBrokenError(
                f"the container engine could not run the command: {end.engine_error}"
            )
        )
    if not end.started and not end.killed and not end.oom_killed:
        if any(sign in end.said for sign in _NO_SHELL):
            return _never_began(
                CommandNotStartedError(
                    "the image has no /bin/sh, which every command is started by"
                )
            )
        if end.exit_code == _KILLED:
            return SandboxBrokenError(
                "the container was killed from outside before its command began"
            )
        return CommandNotStartedError(
            end.said.strip() or f"the launcher ended with {end.exit_code}"
        )
    exit_code, number = exit_code_of(end.exit_code)
    exceeded = Limit.MEMORY if end.oom_killed else None
    return ExecResult(exit_code=exit_code, signal=number, exceeded=exceeded)
