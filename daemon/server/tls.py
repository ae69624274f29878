"""What the job server speaks TLS with, out of files that are read at its start, and again once they have changed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import grpc

from agent_runner import errors as agent_runner_errors
from agent_runner.tls_files import read_authorities, read_identity
from daemon.errors import InvalidConfigError
from daemon.server.config import ServerConfig

logger = logging.getLogger(__name__)

_Look = tuple[tuple[int, int, int] | None, ...]
"""What is seen of each file without reading it: its inode, size and time."""


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
    files = TlsFiles(certificate, key, authorities)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.renewed,  # type: ignore[arg-type]  # gRPC takes None for no change
        require_client_authentication=authorities is not None,
    )


class TlsFiles:
    """The files of one listener."""

    def __init__(self, certificate: Path, key: Path, authorities: Path | None) -> None:
        self._certificate, self._key, self._authorities = certificate, key, authorities
        self._seen: _Look = ()
        self._turn = threading.Lock()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return what is in the files.

        Raises:
            InvalidConfigError: As ``server_credentials``.
        """
        self._seen = self._look()
        try:
            chain, secret = read_identity(self._certificate, self._key)
            clients = None
            if self._authorities is not None:
                clients = read_authorities(self._authorities, "tls_client_ca")
        except agent_runner_errors.InvalidConfigError as error:
            raise InvalidConfigError(str(error)) from error
        return grpc.ssl_server_certificate_configuration([(secret, chain)], clients)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the same if the files have changed and make sense; None otherwise.

        Called by gRPC for each connection, in one of its threads.
        """
        with self._turn:
            if self._look() == self._seen:
                return None
            try:
                configuration = self.read()
            except InvalidConfigError as error:
                extra = {"action": "tls_kept", "why": str(error)}
                logger.error("the TLS files have changed and are not used", extra=extra)  # noqa: TRY400
                return None
            logger.info("the TLS files were read again", extra={"action": "tls_renewed"})
            return configuration

    def _look(self) -> _Look:
        return tuple(
            _look(path) for path in (self._certificate, self._key, self._authorities) if path
        )


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
