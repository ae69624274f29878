"""The first spawn of the children, before the daemon imports anything that it can do without."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from daemon.local.environment import child_environment
from daemon.supervisor.spawning import SpawnedChild, spawn

if TYPE_CHECKING:
    from typing import Any

AHEAD = "--ahead"
"""Tells a daemon to spawn the job server before it has its launch document."""
CALLED_OFF_BY = (signal.SIGTERM, signal.SIGINT)
"""What a start is called off by: two signals of different kinds, because two of one kind may merge."""
SERVER_ARGV = [sys.executable, "-P", "-m", "daemon.server"]
"""The command of the job server."""


def handover_payload(child: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a child gets through its handover socket; the secrets only where they are used."""
    payload: dict[str, Any] = {"token": document["token"]}
    if "config" in child:
        payload["config"] = child["config"]
    if child.get("gets_secrets"):
        payload["secrets"] = document["secrets"]
    return payload


class ServerAhead:
    """A job server that was spawned before anybody knew its configuration, which comes with the handover."""

    def __init__(self, env: Mapping[str, str], life_fd: int) -> None:
        """Spawn it with what the daemon itself has of the environment; one that cannot be is left to the supervisor."""
        self._env = child_environment(env, {})
        self._child: SpawnedChild | None = None
        try:
            self._child = spawn(SERVER_ARGV, self._env, life_fd)
        except OSError:
            return

    def take(self, child: Mapping[str, Any]) -> SpawnedChild | None:
        """Return the process if it is what the launch document wants; else end it."""
        if (child["argv"], child["env"]) != (SERVER_ARGV, self._env):
            self.give_up()
        spawned, self._child = self._child, None
        return spawned

    def give_up(self) -> None:
        """End it, for nobody wants it any more."""
        child, self._child = self._child, None
        if child is not None:
            child.give_up()


EARLY = 1
"""How many children are spawned before the daemon imports the rest: the job server, which everybody waits for. The
agent-runner would only take processor time from it; it is spawned by the supervisor."""


def spawn_children(
    document: Mapping[str, Any], life_fd: int, ahead: ServerAhead | None
) -> dict[str, SpawnedChild]:
    """Spawn the first children of a launch document, or take the one that was spawned ahead.

    One that cannot be spawned is left to the supervisor, which says why.
    """
    import json  # noqa: PLC0415 - not on the way to the spawn of a server ahead

    early = {}
    for child in document["children"][:EARLY]:
        spawned = ahead.take(child) if ahead is not None else None
        try:
            spawned = spawned or spawn(child["argv"], child["env"], life_fd)
            payload = json.dumps(handover_payload(child, document)).encode()
            spawned.hand_over(payload, document["lock_fd"])
        except OSError:
            break
        early[child["name"]] = spawned
    return early
