"""What the job server speaks TLS with, out of files that are read once, at its start."""

from __future__ import annotations

import grpc

from agent_runner import errors as agent_runner_errors
from agent_runner.tls_files import read_authorities, read_identity
from daemon.errors import InvalidConfigError
from daemon.server.config import ServerConfig


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """Return the credentials of the listener on TCP; None without TLS. Called once per start.

    Raises:
        InvalidConfigError: A file is missing, unreadable, open to every user, or does not fit the others.
    """
    certificate, key, authorities = config.tls_certificate, config.tls_key, config.tls_client_ca
    if certificate is None or key is None:
        if certificate or key or authorities:
            raise InvalidConfigError(
                "TLS needs both tls_certificate and tls_key; tls_client_ca is beside them"
            )
        return None
    if config.insecure:
        raise InvalidConfigError(
            "insecure and tls_certificate contradict each other: leave one out"
        )
    try:
        chain, secret = read_identity(certificate, key)
        clients = None if authorities is None else read_authorities(authorities, "tls_client_ca")
    except agent_runner_errors.InvalidConfigError as error:
        raise InvalidConfigError(str(error)) from error
    return grpc.ssl_server_credentials(
        [(secret, chain)], root_certificates=clients, require_client_auth=clients is not None
    )
