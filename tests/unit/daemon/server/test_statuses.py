"""The table from errors to statuses."""

from __future__ import annotations

from grpc import StatusCode

from agent_runner.errors import AgentRunnerError, InvalidJobSpecError
from daemon.errors import DaemonError, LogGapError, StartFailedError, UsageError
from daemon.server import submission  # noqa: F401 - defines what it raises
from daemon.server.statuses import MAX_MESSAGE_BYTES, NEVER_SENT, STATUS, refusal
from runner.v1 import error_pb2


def leaves(root: type[Exception]) -> list[type[Exception]]:
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] or [root]


def test_every_leaf_error_is_in_the_table():
    """An error that no call raises is said to be so; nothing is forgotten."""
    errors = [*leaves(DaemonError), *leaves(AgentRunnerError)]
    reasons = {error.reason for error in errors}  # type: ignore[attr-defined]

    assert len(errors) > 20
    assert reasons <= STATUS.keys() | NEVER_SENT
    assert not STATUS.keys() & NEVER_SENT


def test_reasons_of_the_wire_have_a_status():
    """What error.proto promises can be sent, and nothing else is."""
    names = {
        name.removeprefix("ERROR_REASON_")
        for name in error_pb2.ErrorReason.keys()  # noqa: SIM118
    }

    assert names == STATUS.keys() | {"UNSPECIFIED"}


def test_refusal_has_status_message_and_reason():
    """Errors of both packages end a call alike."""
    end = refusal(InvalidJobSpecError("env", "is wrong"))

    assert end == (StatusCode.INVALID_ARGUMENT, "env: is wrong", (("reason", "INVALID_JOB_SPEC"),))


def test_log_gap_tells_the_stored_length():
    """In a trailer of its own, for programs."""
    end = refusal(LogGapError(42))

    assert end is not None
    assert ("acknowledged-offset", "42") in end.trailers


def test_error_that_no_call_raises_is_a_defect():
    """It becomes INTERNAL, without its text."""
    assert refusal(StartFailedError("secret detail")) is None
    assert refusal(DaemonError("detail")) is None


def test_long_message_is_cut():
    """Trailers share 8 KiB, whatever the letters."""
    end = refusal(UsageError("ü" * 5000))

    assert end is not None
    assert len(end.message.encode()) <= MAX_MESSAGE_BYTES + len("…".encode())


def test_empty_message_is_the_words_of_the_class():
    """Every error says something."""
    end = refusal(UsageError())

    assert end is not None
    assert end.message == "The words or values of a command or request are wrong."
