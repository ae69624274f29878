"""The configuration of one job server, and the environment contract by which the daemon hands it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daemon.errors import InvalidConfigError
from daemon.server.retention_limits import RetentionLimits

ENV_PREFIX = "RUNNER_SERVER_"
LEASE_S = 30.0
RENEW_S = 10.0
MAX_PENDING = 100_000
"""How many jobs may wait before a submit is refused with QUEUE_FULL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything that a job server is told at start, but the token."""

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
    retention: RetentionLimits = field(default_factory=RetentionLimits)

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

        def text(name: str) -> str:
            value = env.get(ENV_PREFIX + name, "")
            if not value:
                raise InvalidConfigError(f"{ENV_PREFIX}{name} is not set; the daemon sets it")
            return value

        def path(name: str) -> Path | None:
            value = env.get(ENV_PREFIX + name, "")
            return Path(value) if value else None

        def number(name: str) -> float:
            try:
                value = float(text(name))
            except ValueError:
                raise InvalidConfigError(f"{ENV_PREFIX}{name} must be a number") from None
            if not 0 < value < 1e9:  # noqa: PLR2004 - no NaN, no infinity
                raise InvalidConfigError(f"{ENV_PREFIX}{name} must be positive")
            return value

        def bound(name: str) -> int:
            value = text(name)
            if not value.isdecimal() or len(value) > 18:  # noqa: PLR2004 - what SQLite can hold
                raise InvalidConfigError(f"{ENV_PREFIX}{name} must be a whole number, or 0")
            return int(value)

        return cls(
            database=Path(text("DATABASE")),
            log_dir=Path(text("LOG_DIR")),
            socket=Path(text("SOCKET")),
            listen=text("LISTEN"),
            tls_certificate=path("TLS_CERTIFICATE"),
            tls_key=path("TLS_KEY"),
            tls_client_ca=path("TLS_CLIENT_CA"),
            insecure=env.get(ENV_PREFIX + "INSECURE") == "true",
            lease_s=number("LEASE_S"),
            renew_s=number("RENEW_S"),
            max_pending=int(number("MAX_PENDING")),
            retention=RetentionLimits(
                max_jobs=bound("MAX_JOBS"),
                max_age_days=bound("MAX_AGE_DAYS"),
                max_log_bytes=bound("MAX_LOG_BYTES"),
            ),
        )
