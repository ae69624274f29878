"""The CLI's end of the daemon's control socket: a plain socket and json, because a status must be quick."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from daemon.errors import NotRunningError, StateDirError
from daemon.paths import StateDir

_CHUNK_BYTES = 64 << 10
CONNECT_TIMEOUT_S = 5.0


class ControlClient:
    """One connection for one operation; a context manager."""

    def __init__(self, state: StateDir, timeout_s: float | None = CONNECT_TIMEOUT_S) -> None:
        """Connect.

        Raises:
            NotRunningError: No daemon listens.
        """
        self._token = read_token(state)
        self._token_path = state.token
        path = control_path(state)
        if not os.path.exists(path):  # noqa: PTH110 - no error, whatever is in the way
            raise _not_running(state)
        # Late: before most starts there is none, and they need not wait for what speaks to it.
        import socket  # noqa: PLC0415

        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise _not_running(state) from None
        self._socket.settimeout(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def ask(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Send one request and yield the answers until the daemon closes the connection.

        Raises:
            TimeoutError: Nothing came for the timeout.
            PermissionError: The daemon refused, for example for a token that somebody replaced.
            OSError: The connection broke.
        """
        line = json.dumps({**request, "token": self._token})
        self._socket.sendall(line.encode() + b"\n")
        rest = b""
        while chunk := self._socket.recv(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in map(json.loads, lines):
                if "error" in line:
                    raise PermissionError(
                        f"the daemon refused: {line['error']} ({self._token_path})"
                    )
                yield line


def _not_running(state: StateDir) -> NotRunningError:
    return NotRunningError(
        f"not running: no daemon for {state.root}; `runner local start` starts one"
    )


def read_token(state: StateDir) -> str:
    """Return the token of an installation; empty if it has none, which no daemon accepts."""
    try:
        return state.token.read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise StateDirError(f"cannot read {state.token}: {error.strerror}") from error


def control_path(state: StateDir) -> Path:
    """Return where the running daemon listens; another environment may have put it elsewhere than ours."""
    try:
        document = json.loads(state.endpoints.read_bytes())
        return Path(document["control"])
    except (OSError, ValueError, KeyError, TypeError):
        return state.control_socket
