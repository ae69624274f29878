"""Where a job server listens: a private unix socket, and a TCP port that nobody else has.

gRPC lets a second server bind the same socket path, and by default the same port, without any error. The caller holds
the lock of the state directory, so a socket file that is already there is left over; for the port, gRPC is told not to share.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import grpc

from agent_runner.server_link import is_loopback
from daemon.errors import InvalidConfigError, StartFailedError

MAX_SOCKET_PATH_BYTES = 107
"""sockaddr_un holds no more (unix(7))."""
MAX_PORT = 65_535
NO_LISTEN = "none"


def bind_socket(server: grpc.aio.Server, path: Path) -> None:
    """Listen on a unix socket that only this user can reach.

    Raises:
        InvalidConfigError: The path is too long for a socket.
        StartFailedError: It cannot be bound.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise InvalidConfigError(
            f"socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes; choose a shorter one"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
            raise StartFailedError(f"{path} is in the way and no socket; remove it")
        path.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{path}")
        path.chmod(0o600)
    except (OSError, RuntimeError) as error:
        raise StartFailedError(f"cannot listen on unix socket {path}: {error}") from error


def bind_tcp(
    server: grpc.aio.Server,
    listen: str,
    credentials: grpc.ServerCredentials | None,
    *,
    insecure: bool,
) -> str:
    """Listen on ``host:port`` and return it with the port that was really taken; ``none`` stays ``none``.

    Args:
        server: Not started yet.
        listen: Where.
        credentials: For TLS; None speaks in clear.
        insecure: Allow that on an address that others reach: tokens cross the network then for all to read.

    Raises:
        InvalidConfigError: ``listen`` is malformed, or would be in clear and is not allowed to be.
        StartFailedError: The port is taken or the address is not one of this host.
    """
    if listen == NO_LISTEN:
        return listen
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > MAX_PORT:
        raise InvalidConfigError(f"--listen must be host:port or none, not {listen!r}")
    if credentials is None and not insecure and not is_loopback(host.strip("[]")):
        raise InvalidConfigError(
            f"--listen {listen} is reached from other machines, and tokens would go there in clear: "
            "give tls_certificate and tls_key, or say --insecure"
        )
    try:
        if credentials is None:
            bound = server.add_insecure_port(listen)
        else:
            bound = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        # gRPC does not say why.
        raise StartFailedError(
            f"cannot listen on {listen}: {_why(host.strip('[]'), int(port))} or choose --listen"
        ) from error
    return f"{host}:{bound}"


def _why(host: str, port: int) -> str:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As gRPC does, or connections that are being closed would look like a taken port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "the port is taken; stop the other program"
        return f"{error.strerror or error}; use an address of this host that you may bind"
    return "the port is taken; stop the other program"
