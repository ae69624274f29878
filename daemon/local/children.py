"""What the two children of a local daemon run with. The one place that knows both of their contracts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from agent_runner.config import AgentRunnerConfig
from daemon.config import LocalConfig
from daemon.local.launch import allowed_environment
from daemon.paths import StateDir
from daemon.server.config import ServerConfig

SERVER_GRACE_S = 10.0


def local_children(
    state: StateDir, config: LocalConfig, env: Mapping[str, str], secrets: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the children of the launch document, in the order in which they are to be ready.

    Called by ``start_local``, ``restart_local`` and ``run_foreground``; ``secrets`` only keeps
    variables of these names out of the environment.
    """
    agent = _agent_config(state, config)
    # gRPC's own lines on standard error are no JSON and tell an operator nothing below ERROR.
    base = allowed_environment(env, secrets) | {"GRPC_VERBOSITY": "ERROR"}
    python = [sys.executable, "-P", "-m"]
    return [
        {
            "name": "job-server",
            "argv": [*python, "daemon.server"],
            "env": base | _server_config(state, config).to_env(),
            "grace_s": SERVER_GRACE_S,
        },
        {
            "name": "agent-runner",
            "argv": [*python, "agent_runner"],
            "env": base | agent.to_env(),
            "grace_s": agent.cancel_grace_s,
            "gets_secrets": True,
            "drains": True,
            "leaves_orphans": True,
        },
    ]


def _server_config(state: StateDir, config: LocalConfig) -> ServerConfig:
    return ServerConfig(
        database=state.database,
        log_dir=state.job_logs,
        socket=state.server_socket,
        listen=config.listen,
    )


def _agent_config(state: StateDir, config: LocalConfig) -> AgentRunnerConfig:
    return AgentRunnerConfig(
        name=config.agent_name,
        endpoint=f"unix:{state.server_socket}",
        spool_dir=state.spool,
        workspace_dir=state.workspaces / "agent-runner",
        owner_label=state.id,
        slots=config.slots,
        sandbox_tier=config.sandbox_tier,
        allow_unsandboxed=config.allow_unsandboxed,
    )
