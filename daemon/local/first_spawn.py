"""The first spawn of the children, before the daemon imports anything that it can do without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from daemon.supervisor.spawning import SpawnedChild, spawn


def handover_payload(child: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a child gets through its handover pipe; the secrets only where they are used."""
    payload: dict[str, Any] = {"token": document["token"]}
    if child.get("gets_secrets"):
        payload["secrets"] = document["secrets"]
    return payload


EARLY = 1
"""How many children are spawned before the daemon imports the rest: the job server, which everybody waits for. The
agent-runner would only take processor time from it; it is spawned by the supervisor."""


def spawn_children(document: Mapping[str, Any], life_fd: int) -> dict[str, SpawnedChild]:
    """Spawn the first children of a launch document; one that cannot be is left to the supervisor, which says why."""
    early = {}
    for child in document["children"][:EARLY]:
        payload = json.dumps(handover_payload(child, document)).encode()
        try:
            early[child["name"]] = spawn(
                child["argv"], child["env"], payload, life_fd, document["lock_fd"]
            )
        except OSError:
            break
    return early
