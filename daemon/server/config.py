"""The configuration of one job server, and the environment contract by which the daemon hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from daemon.errors import InvalidConfigError
from daemon.server.retention_limits import RetentionLimits

ENV_PREFIX = "RUNNER_SERVER_"
LEASE_S = 30.0
RENEW_S = 10.0
MAX_PENDING = 100_000
"""How many jobs may wait before a submit is refused with QUEUE_FULL."""


class ServerConfig(NamedTuple):
    """Everything that a job server is told at start, but the token. Its fields are given by name."""

    database: Path
    log_dir: Path
    socket: Path
    listen: str
    """``host:port`` (port 0 takes a free one) or ``none``."""
    tls_certificate: Path | None = None
    """For the listener on TCP, with ``tls_key``; without them it speaks in clear, and on loopback only."""
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """Certificates of which one must have signed that of each client; without it clients need none."""
    insecure: bool = False
    """Lets the listener speak in clear beyond loopback."""
    lease_s: float = LEASE_S
    renew_s: float = RENEW_S
    max_pending: int = MAX_PENDING
    retention: RetentionLimits = RetentionLimits()

    @property
    def artifact_dir(self) -> Path:
        """Return the folder for the contents of outputs, beside the logs."""
        return self.log_dir.parent / "artifacts"

    def to_env(self) -> dict[str, str]:
        """Return the variables from which ``from_env`` makes an equal value."""
        values = {
            "DATABASE": str(self.database),
            "LOG_DIR": str(self.log_dir),
            "SOCKET": str(self.socket),
            "LISTEN": self.listen,
            "TLS_CERTIFICATE": str(self.tls_certificate or ""),
            "TLS_KEY": str(self.tls_key or ""),
            "TLS_CLIENT_CA": str(self.tls_client_ca or ""),
            "INSECURE": "true" if self.insecure else "",
            "LEASE_S": repr(self.lease_s),
            "RENEW_S": repr(self.renew_s),
            "MAX_PENDING": str(self.max_pending),
            "MAX_JOBS": str(self.retention.max_jobs),
            "MAX_AGE_DAYS": str(self.retention.max_age_days),
            "MAX_LOG_BYTES": str(self.retention.max_log_bytes),
        }
        return {ENV_PREFIX + name: value for name, value in values.items()}

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> ServerConfig:
        """Read the variables that ``to_env`` writes.

        Raises:
            InvalidConfigError: One is missing or malformed.
        """
        read = _EnvReader(env)
        return cls(
            database=Path(read.text("DATABASE")),
            log_dir=Path(read.text("LOG_DIR")),
            socket=Path(read.text("SOCKET")),
            listen=read.text("LISTEN"),
            tls_certificate=read.path("TLS_CERTIFICATE"),
            tls_key=read.path("TLS_KEY"),
            tls_client_ca=read.path("TLS_CLIENT_CA"),
            insecure=read.flag("INSECURE"),
            lease_s=read.number("LEASE_S"),
            renew_s=read.number("RENEW_S"),
            max_pending=int(read.number("MAX_PENDING")),
            retention=RetentionLimits(
                max_jobs=read.bound("MAX_JOBS"),
                max_age_days=read.bound("MAX_AGE_DAYS"),
                max_log_bytes=read.bound("MAX_LOG_BYTES"),
            ),
        )


class _EnvReader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str) -> str:
        value = self._env.get(ENV_PREFIX + name, "")
        if not value:
            raise InvalidConfigError(f"{ENV_PREFIX}{name} is not set; the daemon sets it")
        return value

    def path(self, name: str) -> Path | None:
        value = self._env.get(ENV_PREFIX + name, "")
        return Path(value) if value else None

    def flag(self, name: str) -> bool:
        return self._env.get(ENV_PREFIX + name) == "true"

    def number(self, name: str) -> float:
        try:
            value = float(self.text(name))
        except ValueError:
            raise InvalidConfigError(f"{ENV_PREFIX}{name} must be a number") from None
        if not 0 < value < 1e9:  # noqa: PLR2004 - no NaN, no infinity
            raise InvalidConfigError(f"{ENV_PREFIX}{name} must be positive")
        return value

    def bound(self, name: str) -> int:
        value = self.text(name)
        if not value.isdecimal() or len(value) > 18:  # noqa: PLR2004 - what SQLite can hold
            raise InvalidConfigError(f"{ENV_PREFIX}{name} must be a whole number, or 0")
        return int(value)
