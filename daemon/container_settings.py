"""The settings of containers beside the engine and the image: the table ``containers`` of the file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from daemon.settings import Setting, choice, parse_flag

if TYPE_CHECKING:
    from agent_runner.container_policy import ContainerPolicy

MAX_REGISTRIES = 100
_REGISTRY_FIELDS = {"host", "username", "password"}
_REFERENCE = re.compile(r"\$\{secret:[^:{}]+:[^:{}]+\}")


def parse_extra_hosts(raw: object) -> list[str]:
    """Return ``NAME=ADDRESS`` entries from a list, or from a text with commas between them.

    Raises:
        ValueError: An entry is none.
    """
    if not raw:
        return []
    # Late: most commands look at no such thing.
    from agent_runner.container_policy import EXTRA_HOST  # noqa: PLC0415

    entries = raw if isinstance(raw, list) else [each for each in str(raw).split(",") if each]
    for entry in entries:
        if not (isinstance(entry, str) and EXTRA_HOST.fullmatch(entry)):
            raise ValueError("expected NAME=ADDRESS entries, such as db.test=10.1.2.3")
    return list(entries)


def parse_registries(raw: object) -> list[dict[str, str]]:
    """Return registries from a list of tables, or from the same as JSON.

    Raises:
        ValueError: One lacks a field, has another, or holds a password that is no reference; no value is repeated.
    """
    if not raw:
        return []
    from agent_runner.container_policy import REGISTRY_HOST  # noqa: PLC0415

    try:
        entries = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        raise ValueError("expected a list of {host, username, password}") from None
    if not isinstance(entries, list) or len(entries) > MAX_REGISTRIES:
        raise ValueError("expected a list of {host, username, password}")
    for entry in entries:
        texts = isinstance(entry, dict) and all(isinstance(each, str) for each in entry.values())
        if not texts or set(entry) != _REGISTRY_FIELDS:
            raise ValueError("each registry needs host, username and password, and nothing else")
        if not REGISTRY_HOST.fullmatch(entry["host"]):
            raise ValueError("the host of a registry is HOST or HOST:PORT, without https://")
        if not _REFERENCE.fullmatch(entry["password"]):
            raise ValueError("the password of a registry must be a reference, ${secret:path:key}")
    return list(entries)


def parse_execution_mode(raw: object) -> dict[str, str]:
    """Return ``docker`` or ``local`` by project, from a table or ``PROJECT=MODE,…``.

    Raises:
        ValueError: A project or a mode is none.
    """
    if not raw:
        return {}
    from agent_runner.container_policy import KIND_OF_EXECUTION  # noqa: PLC0415
    from agent_runner.project_names import PROJECT_NAME  # noqa: PLC0415

    pairs = [each.partition("=")[::2] for each in str(raw).split(",") if each]
    modes = dict(raw) if isinstance(raw, dict) else dict(pairs)
    for project, mode in modes.items():
        if not PROJECT_NAME.fullmatch(str(project)) or mode not in KIND_OF_EXECUTION:
            raise ValueError("expected docker or local for a project, such as web=docker,cli=local")
    return modes


def container_policy(value: Callable[[str], object]) -> ContainerPolicy:
    """Return what the settings say; ``value`` looks one up."""
    from agent_runner.container_policy import ContainerPolicy, Registry  # noqa: PLC0415

    return ContainerPolicy(
        cache=value("containers.cache") is True,
        agent_runners=int(str(value("local.agent_runners"))),
        nested=str(value("containers.nested")),
        allow_privileged=value("containers.allow_privileged") is True,
        extra_hosts=tuple(parse_extra_hosts(value("containers.extra_hosts"))),
        rewrite_localhost=value("containers.rewrite_localhost") is True,
        registries=tuple(
            Registry(**each) for each in parse_registries(value("containers.registries"))
        ),
        execution_mode=parse_execution_mode(value("containers.execution_mode")),
    )


CONTAINER_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "containers.cache",
        "RUNNER_CONTAINER_CACHE",
        False,
        parse_flag,
        "give every job the cache of its project at /cache",
    ),
    Setting(
        "containers.nested",
        "RUNNER_CONTAINER_NESTED",
        "none",
        choice("none", "dind", "dood"),
        "engine of containers that jobs may ask for inside theirs",
    ),
    Setting(
        "containers.allow_privileged",
        "RUNNER_CONTAINER_ALLOW_PRIVILEGED",
        False,
        parse_flag,
        "let jobs with dind be root of the host",
    ),
    Setting(
        "containers.extra_hosts",
        "RUNNER_CONTAINER_EXTRA_HOSTS",
        "",
        parse_extra_hosts,
        "NAME=ADDRESS of hosts that jobs know; the address host-gateway is the engine's host",
    ),
    Setting(
        "containers.rewrite_localhost",
        "RUNNER_CONTAINER_REWRITE_LOCALHOST",
        False,
        parse_flag,
        "let URLs of localhost in the environment of jobs name the engine's host",
    ),
    Setting(
        "containers.registries",
        "RUNNER_CONTAINER_REGISTRIES",
        "",
        parse_registries,
        "host, username and password of registries; the password is a secret reference",
        repeated=False,
    ),
    Setting(
        "containers.execution_mode",
        "RUNNER_CONTAINER_EXECUTION_MODE",
        "",
        parse_execution_mode,
        "docker or local by project; others run as the mode says",
    ),
)
