"""What runners have left in an engine: found by its labels, whoever made it. For ``runner gc``, which knows whose is whose."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sandbox.container import hardening
from sandbox.container.engine import Engine, label_filter
from sandbox.container.settings import ContainerSettings
from sandbox.errors import SandboxBrokenError

CONTAINER, VOLUME, CACHE = "container", "volume", "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLeftover:
    """A container or a volume that a runner has made."""

    kind: str
    name: str
    owner: str
    """The label of the agent-runner, or of the ``run-local``; empty for a cache, which outlives both."""
    state_folder: str
    """Where that had its workspaces."""
    sandbox: str
    created_s: float
    """In seconds since the epoch."""


async def find_made_by_runners(settings: ContainerSettings) -> list[EngineLeftover]:
    """Return everything in an engine that has an owner, containers before the volumes that they hold; then the caches of projects.

    Raises:
        SandboxError: The engine cannot be asked.
    """
    engine = Engine(settings)
    try:
        await engine.connect()
        mine = {"filters": label_filter(hardening.OWNER_LABEL)}
        containers = await engine.get_json("/containers/json", all="true", **mine)
        volumes = (await engine.get_json("/volumes", **mine))["Volumes"] or ()
        shared = {"filters": label_filter(hardening.CACHE_LABEL)}
        caches = (await engine.get_json("/volumes", **shared))["Volumes"] or ()
    finally:
        await engine.close()
    found = [
        _leftover(CONTAINER, str(each["Names"][0]).lstrip("/"), each, float(each["Created"]))
        for each in containers
    ]
    for kind, each in [*((VOLUME, one) for one in volumes), *((CACHE, one) for one in caches)]:
        found.append(_leftover(kind, str(each["Name"]), each, _moment(each)))
    return found


async def remove_all(
    settings: ContainerSettings, containers: Collection[str], volumes: Collection[str]
) -> None:
    """Remove containers, with what runs in them, and then volumes; what is gone already is fine.

    Raises:
        SandboxError: The engine cannot be asked, or a volume is in use.
    """
    engine = Engine(settings)
    try:
        await engine.connect()
        for name in containers:
            await engine.remove(name)
        for name in volumes:
            if not await engine.remove_volume(name):
                raise SandboxBrokenError(f"the volume {name} is in use")
    finally:
        await engine.close()


def _leftover(kind: str, name: str, facts: dict[str, Any], created_s: float) -> EngineLeftover:
    labels = facts["Labels"]
    return EngineLeftover(
        kind=kind,
        name=name,
        owner=str(labels.get(hardening.OWNER_LABEL, "")),
        state_folder=str(labels.get(hardening.STATE_LABEL, "")),
        sandbox=str(labels.get(hardening.SANDBOX_LABEL, "")),
        created_s=created_s,
    )


def _moment(volume: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(volume["CreatedAt"])).timestamp()
    except (KeyError, ValueError):
        return 0.0
