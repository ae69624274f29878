"""The proxy of one job: an HTTP proxy that lets through what a list permits, and tells what it does not.

TLS is passed on unseen, so a permitted host is a way out for whatever the job knows. One request per connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from sandbox.network.admission import RefusedError, UnreachableError, admitted
from sandbox.network.request import MAX_HEAD_BYTES, BadRequestError, ProxyRequest, parse_head
from sandbox.network.resolver import Resolver
from sandbox.network.rules import Address, HostRules

MAX_CONNECTIONS = 256
HEAD_S = 10.0
"""How long a client may take for the head of its request."""
CONNECT_S = 10.0
"""For each address of a host."""
IDLE_S = 600.0
"""How long a connection may carry nothing: a model may think for minutes before it answers."""
_SWEEP_S = 5.0
_PIECE_BYTES = 64 << 10

Report = Callable[[str], Awaitable[None]]
"""Takes one line about a refusal, before the client is told of it."""


class Proxy:
    """Serves one listening socket. Used on one event loop."""

    def __init__(self, rules: HostRules, resolver: Resolver, report: Report) -> None:
        """Remember what to permit, whom to ask, and whom to tell."""
        self._rules = rules
        self._resolver = resolver
        self._report = report
        self._exchanges: set[_Exchange] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled; every connection is closed then."""
        server = await asyncio.start_server(self._serve_one, sock=listener, limit=MAX_HEAD_BYTES)
        try:
            async with server:
                while True:
                    await asyncio.sleep(_SWEEP_S)
                    self._end_idle()
        finally:
            for exchange in list(self._exchanges):
                exchange.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = _Exchange(reader, writer)
        self._exchanges.add(exchange)
        try:
            if len(self._exchanges) > MAX_CONNECTIONS:
                await exchange.answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            else:
                await self._handle(exchange)
        except (OSError, EOFError, asyncio.CancelledError):
            # The client is gone, or this proxy is going.
            return
        finally:
            self._exchanges.discard(exchange)
            exchange.abort()

    async def _handle(self, exchange: _Exchange) -> None:
        try:
            request = await exchange.read_request()
        except BadRequestError as error:
            await self._report(f"refused a request: {error.problem}")
            await exchange.answer(error.status, error.problem)
            return
        try:
            addresses = await admitted(request.target, self._rules, self._resolver)
            far = await exchange.connect(request, addresses)
        except RefusedError as error:
            await self._report(f"refused {request}: {error}")
            await exchange.answer(HTTPStatus.FORBIDDEN, f"{request.target}: {error}")
        except UnreachableError as error:
            await exchange.answer(HTTPStatus.BAD_GATEWAY, str(error))
        else:
            await exchange.carry(request, *far)

    def _end_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        for exchange in list(self._exchanges):
            if now - exchange.last_bytes > IDLE_S:
                exchange.abort()


class _Exchange:
    """One connection of a client, and the one that was made for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._writers = [writer]
        self._loop = asyncio.get_running_loop()
        self.last_bytes = self._loop.time()

    async def read_request(self) -> ProxyRequest:
        """Return what the client asks for.

        Raises:
            BadRequestError: It asks for nothing that is served, or too slowly.
            EOFError: It is gone.
        """
        try:
            async with asyncio.timeout(HEAD_S):
                head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as error:
            raise BadRequestError(431, "the head of the request is too long") from error
        except TimeoutError as error:
            raise BadRequestError(408, "the head of the request did not come") from error
        return parse_head(head)

    async def answer(self, status: int, text: str) -> None:
        """Tell the client why it gets nothing else, and read what it still sends: a reset would take the answer away."""
        body = f"runner: {text}\n".encode()
        head = (
            f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while await self._reader.read(_PIECE_BYTES):
                    continue

    async def connect(
        self, request: ProxyRequest, addresses: list[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address that answers.

        Raises:
            UnreachableError: None does.
        """
        problem: OSError | None = None
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(
                        str(address), request.target.port
                    )
            except OSError as error:
                problem = error
            else:
                self._writers.append(writer)
                return reader, writer
        raise UnreachableError(f"{request.target}: {problem or 'no address'}")

    async def carry(
        self,
        request: ProxyRequest,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Carry bytes both ways until the target has no more."""
        if request.is_tunnel:
            self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            far_writer.write(request.head)
        count = None if request.is_tunnel else request.body_bytes
        uploading = asyncio.ensure_future(self._upload(far_writer, count))
        try:
            await self._pump(far_reader, self._writer, None)
            if request.is_tunnel:
                # The target may have closed its half only.
                await uploading
        finally:
            uploading.cancel()
            await asyncio.wait({uploading})

    def abort(self) -> None:
        """Close both connections at once; what was written is sent as far as possible. Idempotent."""
        for writer in self._writers:
            writer.close()

    async def _upload(self, far_writer: asyncio.StreamWriter, count: int | None) -> None:
        """Carry what the client sends; one that breaks off ends the exchange, for which nobody waits any more."""
        try:
            await self._pump(self._reader, far_writer, count)
        except (OSError, EOFError):
            self.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, count: int | None
    ) -> None:
        """Carry ``count`` bytes, or all that there are and then the end.

        Raises:
            OSError: One of the two is gone.
            EOFError: There were less than ``count``.
        """
        left = count
        while left is None or left > 0:
            piece = await source.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
            if not piece:
                if left is not None:
                    raise EOFError
                break
            if left is not None:
                left -= len(piece)
            self.last_bytes = self._loop.time()
            sink.write(piece)
            await sink.drain()
        if left is None and sink.can_write_eof():
            with contextlib.suppress(OSError):  # the other end is gone already
                sink.write_eof()
