"""The proxy of a job with real connections: what it lets through, what it refuses and tells, and what it survives."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from sandbox.network import proxy as proxy_module
from sandbox.network.proxy import MAX_CONNECTIONS, Proxy
from sandbox.network.resolver import SystemResolver
from sandbox.network.rules import Address, HostRules

DEADLINE_S = 20.0
BIG = 5 << 20


@dataclass
class World:
    """A proxy, a server that echoes, and what was told."""

    proxy_port: int
    far_port: int
    lines: list[str]
    lookups: list[str] = field(default_factory=list)

    async def ask(self, request: str, *, more: bytes = b"") -> bytes:
        """Send a request; return everything that comes back."""
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy_port)
            try:
                writer.write(request.replace("PORT", str(self.far_port)).encode() + more)
                return await reader.read()
            finally:
                writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with what came: a head and a body, or, for a line that is no request, all bytes until the end."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        first = await reader.readline()
        if first.endswith(b"HTTP/1.1\r\n"):
            head = first + await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
            body = head + await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        else:
            writer.write(first + await reader.read())
        await writer.drain()
    writer.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A proxy whose list has one pinned name, and one name that leads inside."""
    far = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = far.sockets[0].getsockname()[1]
    lines: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))
    found = World(listener.getsockname()[1], port, lines)

    class Resolver:
        async def addresses(self, name: str) -> list[Address]:
            found.lookups.append(name)
            if name == "nowhere.test":
                raise OSError("unknown")
            return [ipaddress.ip_address("127.0.0.1")]

    async def report(line: str) -> None:
        lines.append(line)

    rules = HostRules(
        [
            f"allowed.test=127.0.0.1:{port}",
            f"inside.test:{port}",
            "nowhere.test",
            "closed.test=127.0.0.1:1",
        ]
    )
    serving = asyncio.ensure_future(Proxy(rules, Resolver(), report).serve(listener))
    async with far:
        yield found
        serving.cancel()
        await asyncio.wait({serving})


async def test_a_plain_request(world: World) -> None:
    """The target sees its own name, and only what belongs to the request."""
    answer = await world.ask(
        "POST http://allowed.test:PORT/x HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 2\r\n\r\n",
        more=b"okGET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\nok")
    assert b"evil" not in answer
    assert (world.lines, world.lookups) == ([], [])


async def test_a_tunnel_carries_everything(world: World) -> None:
    """Both ways, both ends of the stream included."""
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy_port)
        writer.write(f"CONNECT allowed.test:{world.far_port} HTTP/1.1\r\n\r\nhello\n".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        sending = asyncio.ensure_future(writer.drain())
        writer.write(b"x" * BIG)
        writer.write_eof()
        received = await reader.read()
        await sending
        writer.close()
    assert received == b"hello\n" + b"x" * BIG


@pytest.mark.parametrize(
    ("request_line", "line"),
    [
        ("CONNECT evil.test:443", "refused CONNECT evil.test:443: not on the list"),
        ("CONNECT allowed.test:22", "refused CONNECT allowed.test:22: not on the list"),
        ("CONNECT 127.0.0.1:PORT", "refused CONNECT 127.0.0.1:PORT: not on the list"),
        ("GET http://evil.test/secret-path", "refused GET evil.test:80: not on the list"),
        (
            "CONNECT inside.test:PORT",
            "refused CONNECT inside.test:PORT: leads to 127.0.0.1, which is not public and not on the list",
        ),
        ("GET /", "refused a request: the request is neither CONNECT nor for an http:// address"),
    ],
)
async def test_a_refusal_is_one_line(world: World, request_line: str, line: str) -> None:
    """The job's log gets it, and the client an answer that says the same."""
    answer = await world.ask(f"{request_line} HTTP/1.1\r\n\r\n")
    assert world.lines == [line.replace("PORT", str(world.far_port))]
    assert answer[9:12] in {b"400", b"403"}
    assert world.lines[0].rpartition(": ")[2].encode() in answer


async def test_what_is_not_listed_is_not_looked_up(world: World) -> None:
    """A name that is, once."""
    await world.ask("CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
    await world.ask("CONNECT inside.test:PORT HTTP/1.1\r\n\r\n")
    assert world.lookups == ["inside.test"]


@pytest.mark.parametrize("target", ["nowhere.test:443", "closed.test:1"])
async def test_what_cannot_be_reached_is_no_refusal(world: World, target: str) -> None:
    """The client is told."""
    answer = await world.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert world.lines == []


async def test_a_silent_client_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends no head in time."""
    monkeypatch.setattr(proxy_module, "HEAD_S", 0.1)
    assert (await world.ask("CONNECT allo")).startswith(b"HTTP/1.1 408 ")


async def test_a_flood_of_connections_is_bounded(world: World) -> None:
    """Those that are too many are told so; the others work again when there is room."""
    flood = [
        await asyncio.open_connection("127.0.0.1", world.proxy_port) for _ in range(MAX_CONNECTIONS)
    ]
    answer = await world.ask("CONNECT allowed.test:PORT HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    for _, writer in flood:
        writer.close()
    async with asyncio.timeout(DEADLINE_S):
        while b" 200 " not in await world.ask("GET http://allowed.test:PORT/ HTTP/1.1\r\n\r\n"):
            await asyncio.sleep(0.05)


async def test_a_client_that_breaks_off_frees_its_connection(world: World) -> None:
    """A body that never comes holds nothing open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy_port)
    head = f"POST http://allowed.test:{world.far_port}/ HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"
    writer.write(head.encode())
    writer.write_eof()
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


async def test_the_system_knows_localhost() -> None:
    """As every program of this host does."""
    assert ipaddress.ip_address("127.0.0.1") in await SystemResolver().addresses("localhost")
    with pytest.raises(OSError, match=r"."):
        await SystemResolver().addresses("no-such-name.invalid")
