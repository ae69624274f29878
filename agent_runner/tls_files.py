"""Certificates and keys out of files, with an error that names the setting and says what is wrong.

gRPC itself says at best that a handshake failed, and takes a file without any certificate for one with. So everything
is tried here with the standard library before gRPC gets it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent_runner.errors import InvalidConfigError

MAX_BYTES = 1 << 20
"""The certificates of all public authorities are a quarter of it."""


def read_authorities(path: Path, setting: str) -> bytes:
    """Return the certificates of a file that others are checked against.

    Raises:
        InvalidConfigError: It cannot be read, or holds no certificate.
    """
    import ssl  # noqa: PLC0415 - 4 MB, for those with TLS

    data, _ = _read(path, setting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        # Comments may be in any script.
        context.load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise InvalidConfigError(f"{setting}: {path} holds no certificate (PEM)") from error
    return data


def read_identity(certificate: Path, key: Path, prefix: str = "") -> tuple[bytes, bytes]:
    """Return a certificate, with what stands between it and its authority, and the key that belongs to it.

    Args:
        certificate: PEM; the certificate itself comes first.
        key: PEM without a password, which nobody but its owner and group may read.
        prefix: Of the names of the two settings, for errors.

    Raises:
        InvalidConfigError: One cannot be read or is none, others may read the key, or the two do not belong together.
    """
    import ssl  # noqa: PLC0415

    certificate_name, key_name = f"{prefix}tls_certificate", f"{prefix}tls_key"
    chain, _ = _read(certificate, certificate_name)
    secret, mode = _read(key, key_name)
    if mode & stat.S_IRWXO:
        raise InvalidConfigError(f"{key_name}: every user can read {key}: chmod o= it")
    if b"BEGIN CERTIFICATE" not in chain:
        raise InvalidConfigError(f"{certificate_name}: {certificate} holds no certificate (PEM)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password to give, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise InvalidConfigError(_why(error.reason, certificate, key, key_name)) from error
    return chain, secret


def _why(reason: str | None, certificate: Path, key: Path, key_name: str) -> str:
    if reason == "KEY_VALUES_MISMATCH":
        return f"{key_name}: {key} is not the key of {certificate}"
    return f"{key_name}: {certificate} and {key} cannot be used: PEM without a password is needed"


def _read(path: Path, setting: str) -> tuple[bytes, int]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidConfigError(f"{setting}: {path} is not a file")
            return file.read(MAX_BYTES), stat.S_IMODE(status.st_mode)
    except OSError as error:
        raise InvalidConfigError(f"{setting}: cannot read {path}: {error.strerror}") from error
