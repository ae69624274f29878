"""The daemon's own unix socket: one JSON line in, JSON lines out.

It is not the job server's API. It serves ``runner local status|stop|restart`` without importing grpc on either
side, and it still answers when the job server is dead. Only processes of the same user may speak.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct

# What hmac.compare_digest is where there is no OpenSSL, which hmac would load: 4 MB for one comparison.
from _operator import _compare_digest as equal_in_constant_time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

MAX_REQUEST_BYTES = 64 << 20
"""As large as a handover: a restart may bring secrets."""
REQUEST_DEADLINE_S = 10.0
_PEERCRED = struct.Struct("3i")

logger = logging.getLogger(__name__)


class ControlConnection:
    """One client. Lines to a client that has gone or does not read are dropped."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def send(self, line: dict[str, Any]) -> None:
        """Send one line; never blocks and never raises."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(line).encode() + b"\n")

    async def flush(self) -> None:
        """Wait until the client has got every line, or has gone."""
        try:
            await self._writer.drain()
        except ConnectionError:
            return

    def detach(self) -> int:
        """Return a descriptor of the connection for a successor to speak on; -1 if it has gone."""
        try:
            return os.dup(self._writer.get_extra_info("socket").fileno())
        except OSError:
            return -1


Operation = Callable[[dict[str, Any], ControlConnection], Awaitable[None]]


class ControlServer:
    """Listens on the socket and calls one operation per connection.

    Opened by the daemon under the lock of the state directory, so that an existing socket is a leftover.
    """

    def __init__(self, path: Path, operations: Mapping[str, Operation], token: str) -> None:
        """Take the operations by the word in ``op``, for those who know the token.

        The user is not enough: a job of the same user reaches the socket where no wall hides it (Landlock has no
        right for connecting to a unix socket), but it cannot read the file with the token.
        """
        self._token = token
        self._path = path
        self._operations = dict(operations)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen.

        Raises:
            OSError: The socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, path=self._path, limit=MAX_REQUEST_BYTES
        )
        self._path.chmod(0o600)

    async def close(self, grace_s: float = 1.0) -> None:
        """Stop listening, remove the socket and end every connection. Idempotent.

        An operation that is about to finish gets the grace to say its last line.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace_s)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("the server calls this in a task")
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except asyncio.CancelledError:
            return  # only close() cancels, and it waits for this
        except ConnectionError:
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ControlConnection(writer)
        if peer_uid(writer.get_extra_info("socket")) != os.geteuid():
            logger.warning(
                "A process of another user was turned away",
                extra={"action": "control_peer_refused"},
            )
            return
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                request = json.loads(await reader.readline())
            known = equal_in_constant_time(str(request["token"]).encode(), self._token.encode())
            operation = self._operations[request["op"]]
        except (ValueError, KeyError, TypeError, TimeoutError):
            connection.send({"error": "expected one line of JSON with token and a known op"})
        else:
            if known:
                await operation(request, connection)
            else:
                logger.warning(
                    "A wrong token was turned away", extra={"action": "control_token_refused"}
                )
                connection.send({"error": "the token is not that of this instance"})
        await connection.flush()


def peer_uid(peer: socket.socket) -> int:
    """Return the user of the process at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    uid: int = _PEERCRED.unpack(credentials)[1]
    return uid
