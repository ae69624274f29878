"""How a client or an agent-runner reaches the job server: the address, and what keeps the way there private.

A token crosses no network in clear: beyond this machine there is TLS, or somebody has said that there need not be.
Imports neither grpc nor ssl, because every agent-runner and every command that asks a server begins here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from agent_runner.errors import InvalidConfigError

UNIX = "unix:"
MAX_PORT = 65_535
_ADDRESS = re.compile(
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})"
)


class ServerLink(NamedTuple):
    """One way to a job server; its fields are given by name. ``check`` it before anything is sent."""

    address: str
    """``unix:/path`` or ``host:port``."""
    tls_ca: Path | None = None
    """Certificates of which one must have signed the server's; without it there is no TLS."""
    tls_certificate: Path | None = None
    """What the client shows, where the server wants to see something; ``tls_key`` goes with it."""
    tls_key: Path | None = None
    insecure: bool = False
    """Lets the token cross a network in clear."""

    @property
    def is_unix(self) -> bool:
        """Return whether it is a unix socket, which only this user reaches."""
        return self.address.startswith(UNIX)

    @property
    def is_private(self) -> bool:
        """Return whether TLS is spoken on it."""
        return not self.is_unix and self.tls_ca is not None

    def check(self) -> None:
        """Check that it makes sense and that it would not give the token away.

        Raises:
            InvalidConfigError: It is malformed, or in clear beyond this machine without ``insecure``.
        """
        if self.is_unix:
            return
        host, _ = split_address(self.address)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InvalidConfigError("tls_certificate and tls_key go together: give both or none")
        if self.tls_certificate is not None and self.tls_ca is None:
            raise InvalidConfigError(
                "tls_certificate needs tls_ca: the certificate of who signed the server's"
            )
        if self.tls_ca is not None and self.insecure:
            raise InvalidConfigError("insecure and tls_ca contradict each other: leave one out")
        if self.tls_ca is None and not self.insecure and not is_loopback(host):
            raise InvalidConfigError(
                f"the job server {self.address} is not on this machine, and the token would go there in clear: "
                "give tls_ca (--tls-ca FILE), or say --insecure"
            )


def split_address(address: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of ``host:port``.

    Raises:
        InvalidConfigError: It is no such address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= MAX_PORT:
        raise InvalidConfigError(f"the address of a job server must be HOST:PORT, not {address!r}")
    return match["host"].strip("[]"), int(match["port"])


def is_loopback(host: str) -> bool:
    """Tell whether what is sent to a host cannot leave this machine."""
    if host.lower() == "localhost":
        return True
    import ipaddress  # noqa: PLC0415 - most have a unix socket

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
