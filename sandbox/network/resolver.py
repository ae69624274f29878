"""Looking names up outside the sandbox, once per request: what was checked is what is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Protocol

from sandbox.network.rules import Address

LOOKUP_S = 10.0
MAX_ADDRESSES = 16


class Resolver(Protocol):
    """Knows the addresses of names."""

    async def addresses(self, name: str) -> list[Address]:
        """Return where a normal name leads, in the order to be tried. Called once per request, concurrently.

        Raises:
            OSError: Nobody knows it, or nobody answered in time.
        """
        ...


class SystemResolver:
    """Asks as every program of this host does: its files, and its name servers."""

    async def addresses(self, name: str) -> list[Address]:
        """Return the addresses of a name; see ``Resolver.addresses``."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LOOKUP_S):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        return [plain_address(str(answer[4][0])) for answer in found[:MAX_ADDRESSES]]


def plain_address(text: str) -> Address:
    """Return an address; an IPv4 one that is dressed as IPv6 as what it is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
