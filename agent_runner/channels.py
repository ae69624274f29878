"""Channels to the job server, in clear or with TLS, for agent-runners and for the CLI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import grpc

from agent_runner.grpc_wakeups import heard_at_once
from agent_runner.server_link import ServerLink, split_address
from agent_runner.tls_files import read_authorities, read_identity

Options: TypeAlias = "Sequence[tuple[str, str | int]]"

_NO_PROXY = ("grpc.enable_http_proxy", 0)
"""What is not encrypted must not go where the environment names a proxy."""
_TLS_PROBLEMS = (
    ("certificate has expired", "its certificate has expired"),
    ("certificate is not yet valid", "its certificate is not valid yet"),
    ("CERTIFICATE_VERIFY_FAILED", "nobody in tls_ca has signed its certificate"),
    ("certificate signature failure", "nobody in tls_ca has signed its certificate"),
    ("Hostname Verification Check failed", "its certificate is for another name"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS"),
    ("TSI_PROTOCOL_FAILURE", "the handshake failed"),
)


def open_channel(link: ServerLink, options: Options) -> grpc.aio.Channel:
    """Return a channel for asyncio; connects when it is used.

    Raises:
        InvalidConfigError: The link would give the token away, or its files are unusable.
    """
    target, credentials, all_options = _parts(link, options)
    with heard_at_once():
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=all_options)
        return grpc.aio.secure_channel(target, credentials, options=all_options)


def open_blocking_channel(link: ServerLink, options: Options) -> grpc.Channel:
    """Return a channel for threads; otherwise as ``open_channel``."""
    target, credentials, all_options = _parts(link, options)
    if credentials is None:
        return grpc.insecure_channel(target, options=all_options)
    return grpc.secure_channel(target, credentials, options=all_options)


def tls_problem(details: str) -> str:
    """Return in words why TLS failed, out of what gRPC says of a call that is UNAVAILABLE; empty if it did not, or may not have.

    A server that refuses the *client's* certificate only closes the connection, as one that restarts does.
    """
    return next((text for sign, text in _TLS_PROBLEMS if sign in details), "")


def only_closed(link: ServerLink, details: str) -> str:
    """Return what may be wrong where gRPC says of a connection over the network only that it was closed; empty elsewhere.

    A server that restarts closes it too.
    """
    if link.is_unix or "Socket closed" not in details:
        return ""
    return "it may want TLS (--tls-ca), or a certificate of yours (--tls-certificate)"


def _parts(
    link: ServerLink, options: Options
) -> tuple[str, grpc.ChannelCredentials | None, list[tuple[str, str | int]]]:
    link.check()
    if link.is_unix:
        return link.address, None, [*options]
    host, port = split_address(link.address)
    # Else gRPC reads a host named "unix" as a socket. The brackets of IPv6 are escaped, because this is a URI.
    target = f"dns:///%5B{host}%5D:{port}" if ":" in host else f"dns:///{host}:{port}"
    if not link.is_private:
        return target, None, [*options, _NO_PROXY]
    return target, _credentials(link), [*options]


def _credentials(link: ServerLink) -> grpc.ChannelCredentials:
    authorities = read_authorities(link.tls_ca, "tls_ca") if link.tls_ca else None
    certificate = key = None
    if link.tls_certificate is not None and link.tls_key is not None:
        certificate, key = read_identity(link.tls_certificate, link.tls_key)
    return grpc.ssl_channel_credentials(authorities, key, certificate)
