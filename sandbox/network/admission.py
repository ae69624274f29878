"""Whether a request may go where it wants to, and to which addresses that is: the list of the job, asked once per request."""

from __future__ import annotations

from sandbox.network.request import Target
from sandbox.network.resolver import Resolver, plain_address
from sandbox.network.rules import Address, HostRules


class RefusedError(Exception):
    """The list does not permit it; the text says why, for the log and the client."""


class UnreachableError(Exception):
    """The list permits it, but it cannot be reached; the text says why."""


async def admitted(target: Target, rules: HostRules, resolver: Resolver) -> list[Address]:
    """Return the addresses to connect to.

    A name that is not on the list is not looked up: a question to a name server tells as much as a connection. One that
    leads anywhere it must not is refused as a whole, so that no order of addresses opens a way.

    Raises:
        RefusedError: The list does not permit it.
        UnreachableError: The name has no address.
    """
    if not isinstance(target.host, str):
        address = plain_address(str(target.host))
        if not rules.permits_address(address, target.port, named=False):
            raise RefusedError("not on the list")
        return [address]
    if not rules.permits_name(target.host, target.port):
        raise RefusedError("not on the list")
    pinned = rules.pinned(target.host, target.port)
    if pinned is not None:
        return [pinned]
    try:
        addresses = await resolver.addresses(target.host)
    except OSError as error:  # TimeoutError is one
        raise UnreachableError(f"{target.host} has no address: {error}") from error
    for address in addresses:
        if not rules.permits_address(address, target.port, named=True):
            raise RefusedError(f"leads to {address}, which is not public and not on the list")
    if not addresses:
        raise UnreachableError(f"{target.host} has no address")
    return addresses
