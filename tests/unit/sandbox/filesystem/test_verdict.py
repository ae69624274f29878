"""What the end of a command means."""

from __future__ import annotations

import pytest

from sandbox.base import ExecResult
from sandbox.errors import CommandNotStartedError, SandboxBrokenError
from sandbox.filesystem import verdict


@pytest.mark.parametrize(
    ("status", "held", "code"),
    [
        (1, b"bwrap: execvp x: No such file or directory\n", 127),
        (1, b"bwrap: execvp x: Not a directory\n", 127),
        (1, b"bwrap: execvp a: b: Permission denied\n", 126),
        (1, b"bwrap: execvp a\nb: Permission denied\n", 126),
        (127, b"prlimit: failed to execute x: No such file or directory\n", 127),
        (126, b"prlimit: failed to execute x: Permission denied\n", 126),
    ],
)
def test_launchers_that_could_not_execute(status, held, code):
    """Every launcher's words for it are one result and one line."""
    failure = verdict.launch_failure(status, held)
    assert failure is not None
    result, line = failure
    assert result == ExecResult(exit_code=code)
    assert line.startswith(b"runner: cannot execute ")


@pytest.mark.parametrize(
    ("status", "held"),
    [
        (0, b"bwrap: execvp x: No such file or directory\n"),
        (9, b"bwrap: execvp x: No such file or directory\n"),
        (1, b"bwrap: execvp x: No such file or directory\nmore\n"),
        (1, b"bwrap: something else\n"),
        (1, b""),
    ],
)
def test_commands_that_only_look_like_it(status, held):
    """A command's own words and status stay its own."""
    assert verdict.launch_failure(status, held) is None


def test_limits_that_could_not_be_set_are_no_exit_code():
    """prlimit's own failure is the sandbox's, and only as the one line that it prints."""
    line = b"prlimit: failed to set the NPROC resource limit: Operation not permitted\n"
    error = verdict.limits_failure(1, line)
    assert isinstance(error, SandboxBrokenError)
    assert "NPROC" in str(error)
    for status, held in ((0, line), (2, line), (1, line + b"x"), (1, b"x" + line), (1, b"")):
        assert verdict.limits_failure(status, held) is None


def test_unreached_by_us_is_a_kill():
    """A set-up that we cut short is no failure of the sandbox."""
    assert verdict.unreached(killed=True, held=b"bwrap: x") == ExecResult(exit_code=137, signal=9)


def test_unreached_by_itself_is_broken():
    """Bubblewrap's reason is in the error."""
    error = verdict.unreached(killed=False, held=b"bwrap: No permissions to create namespace\n")
    assert isinstance(error, SandboxBrokenError)
    assert "No permissions" in str(error)


def test_working_directory_is_the_commands_fault():
    """A missing working directory is not retried."""
    error = verdict.unreached(killed=False, held=b"bwrap: Can't chdir to /x: No such file\n")
    assert isinstance(error, CommandNotStartedError)
