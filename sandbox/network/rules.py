"""Which hosts and ports a job may reach: the list of the job file, parsed and asked. Pure.

An entry is ``NAME``, ``*.NAME`` (every name below, not NAME itself), ``NAME=ADDRESS`` (a name that is not looked up),
``ADDRESS`` or ``ADDRESS/BITS``; ``:PORT`` behind it stands for one port instead of 80 and 443, and ``[…]`` around an IPv6
address keeps the two apart. A name that leads to an address which is not public is refused unless the address is listed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressRange: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_PORTS = frozenset({80, 443})
MAX_NAME_CHARS = 253
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_LAST_LABEL = r"(?=[a-z0-9-]*[a-z])[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!0x){_LAST_LABEL}")
"""Names of hosts. A letter in the last label tells them from what C libraries take for an IPv4 address, such as 127.1."""
_TARGET = re.compile(
    r"(?P<host>\[[^\[\]]+\]|[^:\[\]]+|[0-9a-f:.]+(?:/[0-9]+)?)(?::(?P<port>[0-9]{1,5}))?"
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRule:
    """Permits a name, or all names below it."""

    name: str
    below: bool = False
    """For ``*.name``: what ends with a dot and the name."""
    ports: frozenset[int] = DEFAULT_PORTS
    pinned: Address | None = None
    """Where the name leads without being looked up; listed by that, whatever the address is."""

    def covers(self, name: str, port: int) -> bool:
        """Tell whether a normal name and a port are permitted."""
        matches = name.endswith(f".{self.name}") if self.below else name == self.name
        return matches and port in self.ports


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRule:
    """Permits addresses, also those that are not public, and also for names that lead there."""

    addresses: AddressRange
    ports: frozenset[int] = DEFAULT_PORTS

    def covers(self, address: Address, port: int) -> bool:
        """Tell whether an address and a port are permitted."""
        return address in self.addresses and port in self.ports


class HostRules:
    """The list of one job. Whoever asks gives names that ``normal_name`` returned."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Parse the list.

        Raises:
            ValueError: An entry is none; the text says what was expected.
        """
        rules = [parse_rule(entry) for entry in entries]
        self._names = [rule for rule in rules if isinstance(rule, NameRule)]
        self._addresses = [rule for rule in rules if isinstance(rule, AddressRule)]

    def permits_name(self, name: str, port: int) -> bool:
        """Tell whether a name may be looked up and reached at a port, if it leads to permitted addresses."""
        return any(rule.covers(name, port) for rule in self._names)

    def pinned(self, name: str, port: int) -> Address | None:
        """Return where a name leads that is not looked up."""
        return next(
            (rule.pinned for rule in self._names if rule.pinned and rule.covers(name, port)), None
        )

    def permits_address(self, address: Address, port: int, *, named: bool) -> bool:
        """Tell whether an address may be reached: if it is listed, or public and ``named`` by a permitted name."""
        if any(rule.covers(address, port) for rule in self._addresses):
            return True
        return named and is_public(address)


def parse_rule(text: str) -> NameRule | AddressRule:
    """Return what an entry permits.

    Raises:
        ValueError: It is no entry; the text says what was expected.
    """
    if not text.isascii():
        raise ValueError(f"{text!r} is no host: write a name that is not ASCII as xn--…")
    target, pin = text.strip().lower(), None
    if "=" in target:
        target, _, rest = target.partition("=")
        host, port = _split(rest, text)
        pin = _address(host)
        if pin is None or ":" in target:
            raise ValueError(f"{text!r} is not NAME=ADDRESS or NAME=ADDRESS:PORT")
    else:
        target, port = _split(target, text)
    ports = DEFAULT_PORTS if port is None else frozenset({port})
    if pin is None and (addresses := _range(target)) is not None:
        return AddressRule(addresses=addresses, ports=ports)
    below = target.startswith("*.") and pin is None
    name = normal_name(target.removeprefix("*.") if below else target)
    if name is None:
        raise ValueError(
            f"{text!r} is no host: write NAME, *.NAME, NAME=ADDRESS, ADDRESS or ADDRESS/BITS, and :PORT"
        )
    return NameRule(name=name, below=below, ports=ports, pinned=pin)


def normal_name(text: str) -> str | None:
    """Return a host name in its one spelling, lower case and without the dot at its end; None if it is none."""
    name = text.lower().removesuffix(".")
    known = text.isascii() and len(name) <= MAX_NAME_CHARS and _NAME.fullmatch(name)
    return name if known else None


def is_public(address: Address) -> bool:
    """Tell whether an address is of the public internet, looking through IPv6 addresses that stand for IPv4 ones."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        # 2000::/3 is all that was ever given out; Teredo carries a server's and a client's IPv4 address.
        if int(address) >> 125 != 1 or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _split(target: str, text: str) -> tuple[str, int | None]:
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"{text!r} is no host with or without :PORT")
    host, port = match.group("host", "port")
    if port is not None and not 0 < int(port) <= _MAX_PORT:
        raise ValueError(f"{text!r} holds no port from 1 to {_MAX_PORT}")
    return host.removeprefix("[").removesuffix("]"), None if port is None else int(port)


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _range(host: str) -> AddressRange | None:
    if "%" in host:  # a zone is a matter of one host's interfaces
        return None
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None
