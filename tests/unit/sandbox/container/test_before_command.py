"""Which failures of an engine or an image certainly came before the command."""

from __future__ import annotations

import pytest

from sandbox.container.failure import (
    ContainerEnd,
    Operation,
    classify,
    conclude,
    failed_before_command,
)
from sandbox.errors import (
    CommandNotStartedError,
    EngineUnusableError,
    SandboxBrokenError,
    SandboxError,
    SandboxUnavailableError,
)

BEFORE = ("CREATE", "ATTACH", "PULL", "INSPECT_IMAGE", "COPY_IN")
LATER = ("WAIT", "KILL", "ASK", "REMOVE", "COPY_OUT")


@pytest.mark.parametrize("status", [None, 404, 500])
@pytest.mark.parametrize("operation", [*BEFORE, "START", *LATER])
def test_an_answer(operation: str, status: int | None):
    """A start without an answer may have begun, and so may whatever follows it; only before a command is asked for, all are equal."""
    error = classify(Operation[operation], status, "no such image", "image")
    certain = operation in BEFORE or (operation == "START" and status is not None)
    assert failed_before_command(error, exec_asked=True) is certain
    assert failed_before_command(error, exec_asked=False)


def test_the_end_of_a_container():
    """The engine's word that it could not run the command counts, and so does an image without a shell; what the launcher says does not."""
    refused = conclude(ContainerEnd(exit_code=127, engine_error="OCI runtime", started=False))
    no_shell = conclude(ContainerEnd(exit_code=127, said="exec /bin/sh failed", started=False))
    killed = conclude(ContainerEnd(exit_code=137, started=False))
    folder = conclude(ContainerEnd(exit_code=125, said="the working directory", started=False))
    lost = conclude(ContainerEnd(exit_code=255, engine_error="lost", started=True))
    for error, certain in ((refused, True), (no_shell, True), (killed, False), (folder, False)):
        assert isinstance(error, SandboxError)
        assert failed_before_command(error, exec_asked=True) is certain
    assert not isinstance(lost, SandboxError)


def test_what_is_no_failure_of_the_engine():
    """A job that asks for what a container cannot hold, or a source that cannot be copied, fails as it does without a policy."""
    for error in (
        SandboxUnavailableError("a container here cannot hold: protect"),
        classify(Operation.COPY_IN, 400, "cannot overwrite directory", "src"),
        CommandNotStartedError("the name of a variable"),
    ):
        assert not failed_before_command(error, exec_asked=False)
    for error in (EngineUnusableError("an old engine"), SandboxBrokenError("a first container")):
        assert failed_before_command(error, exec_asked=False)
        assert not failed_before_command(error, exec_asked=True)
