"""The launch document of a daemon's successor: another configuration, the same commands and secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agent_runner.container_policy import ContainerPolicy
from agent_runner.errors import AgentRunnerError
from daemon.config import LocalConfig, environ
from daemon.errors import InvalidConfigError
from daemon.local.children import local_children
from daemon.paths import StateDir
from daemon.settings import parse_listen


def renewed(
    state: StateDir, document: Mapping[str, Any], request: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the successor is told; called by the old daemon for a restart.

    The request may come from any process of this user. It overrides parts of the configuration that the
    daemon was started with and adds secrets or the key of the store; commands and environment stay those of the first start.

    Raises:
        InvalidConfigError: The request is malformed.
    """
    try:
        values = {**document["config"], **request["config"]}
        # It came as JSON, in which a policy is an object.
        containers = ContainerPolicy.from_json(json.dumps(values.get("containers") or {}))
        config = LocalConfig(**{**values, "containers": containers}, secrets=())
        parse_listen(config.listen)
        added = {str(name): str(value) for name, value in request.get("secrets", {}).items()}
        secrets = document["secrets"] | added
        fresh = local_children(state, config, environ(), secrets)
        drain_timeout_s = float(config.drain_timeout_s)
        store = document.get("store") or {}
        if request.get("store"):
            store = {name: str(request["store"][name]) for name in ("path", "key")}
            bytes.fromhex(store["key"])
    except (KeyError, TypeError, ValueError, AttributeError, AgentRunnerError) as error:
        raise InvalidConfigError(f"the request for a restart is malformed: {error}") from error
    first = {child["name"]: child for child in document["children"]}
    children = [first.get(child["name"], child) | _settings(child) for child in fresh]
    return {
        **document,
        "config": values,
        "children": children,
        "secrets": secrets,
        "store": store,
        "drain_timeout_s": drain_timeout_s,
    }


def _settings(child: Mapping[str, Any]) -> dict[str, Any]:
    return {name: child[name] for name in ("env", "config") if name in child}
