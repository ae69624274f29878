"""Where the job server of the CLI is, and one connection to it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple, Self

from agent_runner import errors as agent_runner_errors
from agent_runner.channels import open_blocking_channel
from agent_runner.server_link import ServerLink
from daemon.errors import InvalidConfigError, NotRunningError, StateDirError
from daemon.job_client.calls import errors_of_calls
from daemon.paths import StateDir

CALL_TIMEOUT_S = 30.0
# A server that restarts is back within a second, and a channel would wait that long to dial again. The least back-off is not set:
# gRPC takes it for the time in which a connection must be there, and a busy server, or one far away, needs longer.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Server(NamedTuple):
    """A job server, and what lets the CLI in."""

    link: ServerLink
    token: str


def local_server(state: StateDir) -> Server:
    """Return the server that runs for a state directory.

    Raises:
        NotRunningError: None does.
        StateDirError: Its files cannot be read.
    """
    try:
        endpoints = json.loads(state.endpoints.read_bytes())
        token = state.token.read_text().strip()
    except FileNotFoundError:
        raise NotRunningError(
            f"the job server is not running for {state.root}; `runner local start` starts one"
        ) from None
    except (OSError, ValueError) as error:
        raise StateDirError(f"cannot read the endpoints in {state.root}: {error}") from error
    return Server(ServerLink(address=str(endpoints["endpoints"]["unix"])), token)


class Connection:
    """One connection; a context manager. It outlives restarts of the server.

    Raises:
        InvalidConfigError: The token would go over a network in clear, or the files for TLS are unusable.
    """

    def __init__(self, server: Server) -> None:
        try:
            self.channel = open_blocking_channel(server.link, CHANNEL_OPTIONS)
        except agent_runner_errors.InvalidConfigError as error:
            raise InvalidConfigError(str(error)) from error
        self.metadata = (("authorization", f"Bearer {server.token}"),)
        self._away = "" if server.link.is_unix else server.link.address

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        self.channel.close()

    def call(self, method: Any, request: Any) -> Any:
        """Make one call of a stub of ``channel``.

        Raises:
            UnavailableError: No server answers now.
            RemoteError: It refused the call.
        """
        with self.errors():
            return method(request, metadata=self.metadata, timeout=CALL_TIMEOUT_S)

    def errors(self) -> AbstractContextManager[None]:
        """Turn the errors of grpc in a block into those of ``call``."""
        return errors_of_calls(self._away)
