"""The requests that a proxy gets, parsed strictly: pure, and every byte of it is a job's.

What is not plainly one of two forms is refused: ``CONNECT host:port``, and an absolute ``http://`` address. Nothing of a
request goes on that was not understood: the line is written anew, Host is the checked one, and what concerns a
single connection is left out. A body has a length, so that no second request can hide behind it.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple

from sandbox.network.rules import Address, normal_name

MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100
HTTP_PORT = 80
_MAX_PORT = 65535
_LINE = re.compile(rb"(?P<method>[A-Z][A-Z-]{0,19}) (?P<target>[\x21-\x7e]+) HTTP/1\.[01]")
_ADDRESS = re.compile(rb"http://(?P<authority>[^/?#]+)(?P<path>[/?][^#]*)?")
_AUTHORITY = re.compile(r"(?P<host>[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
_HEADER = re.compile(
    rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[\t\x20-\x7e\x80-\xff]*?)[ \t]*"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_OF_ONE_CONNECTION = frozenset(
    {
        b"connection",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class BadRequestError(Exception):
    """A request that is refused for its form."""

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status
        """What the client is told, as HTTP has it."""
        self.problem = problem
        """For the log; holds nothing of the request."""


class Target(NamedTuple):
    """Where a request is to go."""

    host: str | Address
    """A normal name, or an address that was written out."""
    port: int

    def __str__(self) -> str:
        """Return it as people write it."""
        if isinstance(self.host, ipaddress.IPv6Address):
            return f"[{self.host}]:{self.port}"
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyRequest:
    """One request, understood."""

    method: str
    target: Target
    head: bytes = b""
    """What the target is sent; empty for a tunnel."""
    body_bytes: int = 0

    @property
    def is_tunnel(self) -> bool:
        """Tell whether bytes are only passed on."""
        return self.method == "CONNECT"

    def __str__(self) -> str:
        """Return it as it stands in the log: without path, which may hold a secret."""
        return f"{self.method} {self.target}"


def parse_head(head: bytes) -> ProxyRequest:
    """Return the request whose line and headers these are, up to and with the empty line.

    Raises:
        BadRequestError: It is none that a proxy serves.
    """
    if len(head) > MAX_HEAD_BYTES or not head.endswith(b"\r\n\r\n"):
        raise BadRequestError(431, "the head of the request is too long")
    first, *lines = head[:-4].split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise BadRequestError(400, "the request line is malformed")
    headers = _headers(lines)
    if line["method"] == b"CONNECT":
        return ProxyRequest(method="CONNECT", target=_target(line["target"].decode(), None))
    address = _ADDRESS.fullmatch(line["target"])
    if address is None:
        raise BadRequestError(400, "the request is neither CONNECT nor for an http:// address")
    target = _target(address["authority"].decode(), HTTP_PORT)
    path = address["path"] or b"/"
    return ProxyRequest(
        method=line["method"].decode(),
        target=target,
        head=_rewritten(
            line["method"], path if path.startswith(b"/") else b"/" + path, target, headers
        ),
        body_bytes=_body_bytes(headers),
    )


def _headers(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    if len(lines) > MAX_HEADERS:
        raise BadRequestError(431, "the request has too many headers")
    headers = []
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise BadRequestError(400, "a header is malformed")
        headers.append((match["name"], match["value"]))
    return headers


def _target(authority: str, default_port: int | None) -> Target:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise BadRequestError(400, "the host is malformed")
    port = int(match["port"]) if match["port"] else default_port
    if port is None or not 0 < port <= _MAX_PORT:
        raise BadRequestError(400, "the port is missing or impossible")
    text = match["host"].removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        name = normal_name(match["host"])
        if name is None:
            raise BadRequestError(403, "the host is neither a name nor a plain address") from None
        return Target(name, port)
    if (address.version == 6) != match["host"].startswith("["):  # noqa: PLR2004 - IPv6
        raise BadRequestError(400, "the host is malformed")
    return Target(address, port)


def _body_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    by_name = [name.lower() for name, _ in headers]
    if b"transfer-encoding" in by_name:
        raise BadRequestError(411, "the body of the request has no length")
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    if not lengths:
        return 0
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequestError(400, "the length of the body is malformed")
    return int(lengths[0])


def _rewritten(
    method: bytes, path: bytes, target: Target, headers: list[tuple[bytes, bytes]]
) -> bytes:
    """Return the head for the target: one request, after which the connection ends."""
    dropped = set(_OF_ONE_CONNECTION)
    for name, value in headers:
        if name.lower() == b"connection":
            dropped |= {word.strip().lower() for word in value.split(b",")}
    # The length of the body is ours to keep: what bounds it must reach the target.
    dropped.discard(b"content-length")
    host = str(target) if target.port != HTTP_PORT else str(target).rpartition(":")[0]
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: " + host.encode()]
    lines += [b"%s: %s" % (name, value) for name, value in headers if name.lower() not in dropped]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])
