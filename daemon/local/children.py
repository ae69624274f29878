"""What the children of a local daemon run with. The one place that knows both of their contracts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_runner.config import AgentRunnerConfig
from daemon.config import LocalConfig
from daemon.local.environment import child_environment
from daemon.local.first_spawn import SERVER_ARGV
from daemon.paths import StateDir
from daemon.server.config import ServerConfig
from daemon.server.retention_limits import RetentionLimits

SERVER_GRACE_S = 10.0
AGENT_RUNNER = "agent-runner"
"""The first agent-runner; the n-th one is ``agent-runner-n``."""


def local_children(
    state: StateDir, config: LocalConfig, env: Mapping[str, str], secrets: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the children of the launch document, in the order in which they are to be ready.

    Called by ``start_local``, ``restart_local`` and ``run_foreground``; ``secrets`` only keeps
    variables of these names out of the environment.
    """
    base = child_environment(env, secrets)
    server = {
        "name": "job-server",
        "argv": SERVER_ARGV,
        "env": base,
        "config": server_config(state, config).to_env(),
        "grace_s": SERVER_GRACE_S,
    }
    agents = [agent_config(state, config, n) for n in range(1, config.agent_runners + 1)]
    return [
        server,
        *(
            {
                "name": agent.workspace_dir.name,
                "argv": [sys.executable, "-P", "-m", "agent_runner"],
                "env": base | agent.to_env(),
                "grace_s": agent.cancel_grace_s,
                "gets_secrets": True,
                "drains": True,
                "leaves_orphans": True,
            }
            for agent in agents
        ),
    ]


def server_config(state: StateDir, config: LocalConfig) -> ServerConfig:
    """Return what a job server runs with in a state directory."""
    return ServerConfig(
        database=state.database,
        log_dir=state.job_logs,
        socket=state.server_socket,
        listen=config.listen,
        retention=RetentionLimits(
            max_jobs=config.max_jobs,
            max_age_days=config.max_age_days,
            max_log_bytes=config.max_log_bytes,
        ),
    )


def agent_config(state: StateDir, config: LocalConfig, number: int) -> AgentRunnerConfig:
    """Return what the n-th agent-runner runs with in a state directory."""
    suffix = "" if number == 1 else f"-{number}"
    return AgentRunnerConfig(
        name=config.agent_name + suffix,
        endpoint=f"unix:{state.server_socket}",
        spool_dir=state.spool_of(number),
        workspace_dir=state.workspaces / f"{AGENT_RUNNER}{suffix}",
        # What has the label of a dead agent-runner is killed at its next start, so each needs its own.
        owner_label=state.id + suffix,
        slots=config.slots,
        warm_slots=config.warm_slots,
        mode=config.mode,
        container_engine=config.container_engine,
        container_certs=Path(config.container_certs) if config.container_certs else None,
        container_image=config.container_image,
        container_pull=config.container_pull,
        # Installations that share an engine share no cache.
        containers=config.containers._replace(cache_prefix=f"runner-cache-{state.id}"),
        sandbox_tier=config.sandbox_tier,
        allow_unsandboxed=config.allow_unsandboxed,
        max_output_bytes=config.max_output_bytes,
    )
