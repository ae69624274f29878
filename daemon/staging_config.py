"""What ``runner server`` and ``runner agent-runner`` run with: what the same process has in local mode, and where the other one is."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.config import LocalConfig, Value, load, local_config

MAX_NAME_CHARS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStaging:
    """The configuration of ``runner server``."""

    local: LocalConfig
    """Retention, and whatever else it shares with the job server of local mode."""
    listen: str
    """``host:port`` or ``none``."""
    tls_certificate: Path | None
    """This and the three after it are those of ``daemon.server.config``."""
    tls_key: Path | None
    tls_client_ca: Path | None
    insecure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStaging:
    """The configuration of ``runner agent-runner``."""

    local: LocalConfig
    """Slots, mode, sandbox and whatever else it shares with an agent-runner of local mode."""
    server: str
    """``host:port`` or ``unix:/path``; empty if nobody has said."""
    name: str
    labels: Mapping[str, str]
    projects: tuple[str, ...]
    """Whose jobs it takes; empty for all that its token is for."""
    token_file: Path | None
    tls_ca: Path | None
    """This and the three after it are those of ``agent_runner.server_link``."""
    tls_certificate: Path | None
    tls_key: Path | None
    insecure: bool


def server_staging(env: Mapping[str, str], flags: Mapping[str, object]) -> ServerStaging:
    """Return what ``runner server`` runs with; ``flags`` holds only what was given, by key.

    Raises:
        InvalidConfigError, UsageError: As ``load``.
    """
    values = load(env, flags)
    return ServerStaging(
        local=local_config(env, flags),
        listen=_text(values, "server.listen"),
        tls_certificate=_path(values, "server.tls_certificate"),
        tls_key=_path(values, "server.tls_key"),
        tls_client_ca=_path(values, "server.tls_client_ca"),
        insecure=values["server.insecure"].value is True,
    )


def agent_staging(env: Mapping[str, str], flags: Mapping[str, object]) -> AgentStaging:
    """Return what ``runner agent-runner`` runs with; ``flags`` as for ``server_staging``.

    Raises:
        InvalidConfigError, UsageError: As ``load``.
    """
    values = load(env, flags)
    labels = values["agent_runner.labels"].value
    projects = values["agent_runner.projects"].value
    return AgentStaging(
        local=local_config(env, flags)._replace(mode=_text(values, "agent_runner.mode")),
        server=_absolute(_text(values, "agent_runner.server")),
        name=_text(values, "agent_runner.name") or host_name(),
        labels=labels if isinstance(labels, dict) else {},
        projects=projects if isinstance(projects, tuple) else (),
        token_file=_path(values, "agent_runner.token_file"),
        tls_ca=_path(values, "agent_runner.tls_ca"),
        tls_certificate=_path(values, "agent_runner.tls_certificate"),
        tls_key=_path(values, "agent_runner.tls_key"),
        insecure=values["agent_runner.insecure"].value is True,
    )


def host_name() -> str:
    """Return the name of this host as the name of an agent-runner may be."""
    return (
        re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip(".-_")[:MAX_NAME_CHARS]
        or "host"
    )


def _absolute(address: str) -> str:
    """Return an address that means the same in another folder: the process itself works in ``/``."""
    path = address.removeprefix("unix:")
    return address if path == address else f"unix:{Path(path).absolute()}"


def _text(values: Mapping[str, Value], key: str) -> str:
    return str(values[key].value)


def _path(values: Mapping[str, Value], key: str) -> Path | None:
    text = _text(values, key)
    return Path(text).absolute() if text else None
