"""What a call of the CLI can meet: a server that is away for a while, and one that says no."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from agent_runner.channels import only_closed, tls_problem
from agent_runner.server_link import ServerLink
from daemon.errors import DaemonError, RemoteError

PATIENCE_S = 30.0
"""How long a server that went away is waited for."""
_PAUSE_S = 0.2
_UNAVAILABLE_EXIT_CODE = 3
_EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 2,
    grpc.StatusCode.NOT_FOUND: 3,
}

T = TypeVar("T")


class UnavailableError(RemoteError):
    """No server answers, or it says that it cannot now: the same call may succeed later."""


class Patience:
    """Bounds the time without any answer while a server restarts. One per operation."""

    def __init__(self, bound_s: float) -> None:
        self._bound_s = bound_s
        self._deadline: float | None = None

    def renew(self) -> None:
        """Start over: the server has answered."""
        self._deadline = None

    def spend(self, error: DaemonError) -> None:
        """Wait a little, or raise the error if there is no patience left."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._bound_s
        if now >= self._deadline:
            raise error
        time.sleep(_PAUSE_S)

    def insist(self, call: Callable[[], T]) -> T:
        """Call until the server takes it; for a part of a longer operation."""
        while True:
            try:
                result = call()
            except UnavailableError as error:
                self.spend(error)
            else:
                self.renew()
                return result


@contextmanager
def errors_of_calls(away: str) -> Iterator[None]:
    """Turn the errors of grpc into ours; ``away`` is the address of a server on TCP, empty for that of a state directory."""
    try:
        yield
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)  # noqa: S101, PT017 - the error of a call is the call
        code, details = error.code(), error.details() or ""
        trailers = {item.key: item.value for item in error.trailing_metadata() or ()}
        reason = str(trailers.get("reason", code.name))
        if code is grpc.StatusCode.UNAVAILABLE and reason != code.name:
            raise UnavailableError(details, reason, _UNAVAILABLE_EXIT_CODE) from error
        # A server that ends before a call does cuts it off.
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            if problem := tls_problem(details):
                # It is the same with each call until somebody changes a file.
                raise RemoteError(
                    f"no TLS with the job server {away}: {problem}", "TLS_FAILED"
                ) from error
            text = _no_answer(away, details)
            raise UnavailableError(text, reason, _UNAVAILABLE_EXIT_CODE) from error
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason == code.name:
            details = f"the message is too large for the job server ({details})"
        raise RemoteError(details, reason, _EXIT_CODES.get(code, 1)) from error


def _no_answer(away: str, details: str) -> str:
    if not away:
        return "the job server does not answer; see `runner local status`, start it with `runner local start`"
    if hint := only_closed(ServerLink(away), details):
        return f"the job server {away} closed the connection: {hint}"
    return f"the job server {away} does not answer"
