"""What an answer of the engine means, by table."""

from __future__ import annotations

import pytest

from sandbox.base import ExecResult
from sandbox.container.failure import ContainerEnd, Operation, classify, conclude
from sandbox.errors import (
    CommandNotStartedError,
    EngineGoneError,
    ImageMissingError,
    SandboxBrokenError,
    TransferRefusedError,
)
from sandbox.limits import Limit


@pytest.mark.parametrize(
    ("operation", "status", "message", "kind"),
    [
        (Operation.CREATE, 404, "No such image: a:1", ImageMissingError),
        (Operation.INSPECT_IMAGE, 404, "no such image: a:1: image not known", ImageMissingError),
        (Operation.PULL, 404, "manifest for a:1 not found: manifest unknown", ImageMissingError),
        (
            Operation.PULL,
            200,
            "pull access denied for a, repository does not exist",
            ImageMissingError,
        ),
        (Operation.PULL, 500, "Get https://r/v2/: connection refused", SandboxBrokenError),
        (Operation.CREATE, 400, "invalid reference format", ImageMissingError),
        (Operation.CREATE, 409, "the name is in use", SandboxBrokenError),
        (Operation.CREATE, 500, "container-init binary not found on the host", SandboxBrokenError),
        (Operation.START, 500, "OCI runtime create failed", SandboxBrokenError),
        (
            Operation.COPY_IN,
            400,
            "cannot overwrite non-directory with directory",
            TransferRefusedError,
        ),
        (Operation.COPY_IN, 500, "no space left on device", SandboxBrokenError),
        (Operation.COPY_OUT, 404, "Could not find the file /job/src/x", TransferRefusedError),
        (Operation.COPY_OUT, 500, "readlink /x/job/src/a: invalid argument", TransferRefusedError),
        (Operation.COPY_OUT, 500, "lstat /x/job/src/a/b: not a directory", TransferRefusedError),
        (Operation.COPY_OUT, 500, "read /x: input/output error", SandboxBrokenError),
        (Operation.COPY_OUT, 500, "no space left on device", SandboxBrokenError),
        (Operation.WAIT, None, "Server disconnected", EngineGoneError),
        (Operation.CREATE, None, "No such file or directory", EngineGoneError),
    ],
)
def test_every_answer_has_one_meaning(operation, status, message, kind):
    """Operation, status and words decide together; the message is kept."""
    error = classify(operation, status, message, "a:1")
    assert type(error) is kind
    assert message in str(error)


def test_reasons_are_told_apart():
    """Each has its own stable reason, and only what may go better next time is tried again."""
    errors = {ImageMissingError, EngineGoneError, SandboxBrokenError, CommandNotStartedError}
    assert len({error.reason for error in errors}) == len(errors)
    assert {error for error in errors if error.retryable} == {EngineGoneError, SandboxBrokenError}


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (ContainerEnd(exit_code=0), ExecResult(exit_code=0)),
        (ContainerEnd(exit_code=3, said="runner: started\n"), ExecResult(exit_code=3)),
        (ContainerEnd(exit_code=127), ExecResult(exit_code=127)),
        (ContainerEnd(exit_code=143), ExecResult(exit_code=143, signal=15)),
        (
            ContainerEnd(exit_code=137, oom_killed=True),
            ExecResult(exit_code=137, signal=9, exceeded=Limit.MEMORY),
        ),
        (
            ContainerEnd(exit_code=0, oom_killed=True),
            ExecResult(exit_code=0, exceeded=Limit.MEMORY),
        ),
        (
            ContainerEnd(exit_code=137, started=False, killed=True),
            ExecResult(exit_code=137, signal=9),
        ),
    ],
)
def test_an_end_that_is_a_result(end, result):
    """A command that fails, dies, or is killed is data."""
    assert conclude(end) == result


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (
            ContainerEnd(
                exit_code=127,
                started=False,
                said="[FATAL tini (7)] exec /bin/sh failed: No such file or directory\n",
            ),
            CommandNotStartedError,
            "no /bin/sh",
        ),
        (
            ContainerEnd(
                exit_code=125, started=False, said="the working directory /x cannot be used\n"
            ),
            CommandNotStartedError,
            "/x",
        ),
        (ContainerEnd(exit_code=2, started=False), CommandNotStartedError, "ended with 2"),
        (ContainerEnd(exit_code=137, started=False), SandboxBrokenError, "from outside"),
        (
            ContainerEnd(exit_code=128, started=False, engine_error="no such device"),
            SandboxBrokenError,
            "no such device",
        ),
    ],
)
def test_an_end_before_the_beginning(end, kind, words):
    """A command that never began is an error, the machine's or the request's."""
    error = conclude(end)
    assert type(error) is kind
    assert words in str(error)


def test_who_reads_that_the_engine_is_gone_sees_no_number_of_an_error():
    """Only what the system says of it, and where."""
    error = classify(Operation.ASK, None, "unix:///a.sock: [Errno 2] No such file or directory")
    assert str(error).endswith("unix:///a.sock: No such file or directory")
