"""What each error means on the wire: the one table from ``reason`` to status, and the trailers that go with it.

The litmus: retry just this call, UNAVAILABLE; retry a larger sequence, ABORTED; change something first,
FAILED_PRECONDITION. Clients decide by the ``reason`` trailer, which never changes; the message is for people.
"""

from __future__ import annotations

from typing import NamedTuple

from grpc import StatusCode

from agent_runner.errors import AgentRunnerError
from daemon.errors import DaemonError, LogGapError

STATUS: dict[str, StatusCode] = {
    "INVALID_JOB_SPEC": StatusCode.INVALID_ARGUMENT,
    "INVALID_JOB_FILE": StatusCode.INVALID_ARGUMENT,
    "INVALID_REQUEST": StatusCode.INVALID_ARGUMENT,
    "JOB_NOT_FOUND": StatusCode.NOT_FOUND,
    "ATTEMPT_NOT_FOUND": StatusCode.NOT_FOUND,
    "ARTIFACT_NOT_FOUND": StatusCode.NOT_FOUND,
    "REQUEST_ID_REUSED": StatusCode.ALREADY_EXISTS,
    "JOB_NOT_CANCELLABLE": StatusCode.FAILED_PRECONDITION,
    "JOB_NOT_ENDED": StatusCode.FAILED_PRECONDITION,
    "DEPENDENCY_FAILED": StatusCode.FAILED_PRECONDITION,
    "EVENTS_REMOVED": StatusCode.OUT_OF_RANGE,
    "ARTIFACT_MISSING": StatusCode.FAILED_PRECONDITION,
    "INPUT_MISSING": StatusCode.FAILED_PRECONDITION,
    "LOG_GAP": StatusCode.FAILED_PRECONDITION,
    "SECRET_MISSING": StatusCode.FAILED_PRECONDITION,
    "LOCKED": StatusCode.FAILED_PRECONDITION,
    "LEASE_LOST": StatusCode.ABORTED,
    "AGENT_REPLACED": StatusCode.ABORTED,
    "QUEUE_FULL": StatusCode.RESOURCE_EXHAUSTED,
    "TOKEN_MISSING": StatusCode.UNAUTHENTICATED,
    "TOKEN_REJECTED": StatusCode.UNAUTHENTICATED,
    "ROLE_NOT_ALLOWED": StatusCode.PERMISSION_DENIED,
    "PROJECT_NOT_ALLOWED": StatusCode.PERMISSION_DENIED,
    "TOKEN_NOT_FOUND": StatusCode.NOT_FOUND,
    "SHUTTING_DOWN": StatusCode.UNAVAILABLE,
    "STORE_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "ARTIFACT_NOT_WRITTEN": StatusCode.UNAVAILABLE,
    "LOG_NOT_WRITTEN": StatusCode.UNAVAILABLE,
    "RECORD_CORRUPT": StatusCode.DATA_LOSS,
    "INTERNAL": StatusCode.INTERNAL,
}

NEVER_SENT = frozenset(
    {
        "INTERRUPTED",
        "INVALID_CONFIG",
        "KEYRING_UNUSABLE",
        "NOT_ADMITTED",
        "NO_SECRET_STORE",
        "NOT_RUNNING",
        "SECRET_EXISTS",
        "SECRET_KEY_STALE",
        "SECRET_NOT_FOUND",
        "SECRET_SOURCE_GONE",
        "SECRET_STORE_DAMAGED",
        "SECRET_STORE_FAILED",
        "SERVER_REFUSED",
        "SERVER_UNAVAILABLE",
        "SOURCE_FAILED",
        "START_FAILED",
        "STATE_DIR_UNUSABLE",
        "STOP_FAILED",
        "WORKFLOW_FAILED",
        "WRONG_PASSWORD",
    }
)
"""Reasons of errors that no call raises: of the CLI, of a start, of an agent-runner. A defect if one does."""

INTERNAL_MESSAGE = "internal error; see job-server.log"
MAX_MESSAGE_BYTES = 1500
"""Trailers share 8 KiB, and gRPC writes a byte that is not ASCII as three."""


class Refusal(NamedTuple):
    """The end of a call that failed."""

    status: StatusCode
    message: str
    trailers: tuple[tuple[str, str], ...]


INTERNAL = Refusal(StatusCode.INTERNAL, INTERNAL_MESSAGE, (("reason", "INTERNAL"),))


def refusal(error: DaemonError | AgentRunnerError) -> Refusal | None:
    """Return how a call ends by this error; None for one that should never have come this far."""
    status = STATUS.get(error.reason)
    if status is None or status is StatusCode.INTERNAL:
        return None
    trailers: tuple[tuple[str, str], ...] = (("reason", error.reason),)
    if isinstance(error, LogGapError):
        trailers += (("acknowledged-offset", str(error.acknowledged)),)
    return Refusal(status, _message(error), trailers)


def _message(error: Exception) -> str:
    text = str(error) or (type(error).__doc__ or "").partition("\n")[0]
    raw = text.encode(errors="replace")
    if len(raw) <= MAX_MESSAGE_BYTES:
        return text
    return raw[:MAX_MESSAGE_BYTES].decode(errors="ignore") + "…"
