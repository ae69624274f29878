"""The environment contract of the job server."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.errors import InvalidConfigError
from daemon.server.config import ENV_PREFIX, ServerConfig
from daemon.server.retention_limits import RetentionLimits

PLAIN = ServerConfig(
    database=Path("/d"), log_dir=Path("/l"), socket=Path("/s"), listen="127.0.0.1:0"
)
SECURED = ServerConfig(
    database=Path("/d"),
    log_dir=Path("/l"),
    socket=Path("/s"),
    listen="0.0.0.0:1",
    tls_certificate=Path("/c"),
    tls_key=Path("/k"),
    tls_client_ca=Path("/a"),
    insecure=True,
    retention=RetentionLimits(max_jobs=1, max_age_days=2, max_log_bytes=3),
)


@pytest.mark.parametrize("config", [PLAIN, SECURED])
def test_round_trip(config: ServerConfig) -> None:
    """What is written to the environment is read back as it was."""
    assert ServerConfig.from_env(config.to_env()) == config


@pytest.mark.parametrize(
    ("name", "value"), [("LISTEN", ""), ("LEASE_S", "x"), ("LEASE_S", "nan"), ("MAX_JOBS", "-1")]
)
def test_a_malformed_variable_is_named(name: str, value: str) -> None:
    """By its whole name."""
    with pytest.raises(InvalidConfigError, match=ENV_PREFIX + name):
        ServerConfig.from_env(PLAIN.to_env() | {ENV_PREFIX + name: value})
