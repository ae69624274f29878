"""``runner server`` and ``runner agent-runner`` become the process itself: same pid, new program image.

So neither the caller's environment, which may hold secrets, nor the imports of the CLI live on, and a service manager
watches the very process that it started. What the daemon hands over to its children is handed over here, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from agent_runner.config import AgentRunnerConfig
from agent_runner.descriptors import HANDOVER_FD, LOCK_FD
from agent_runner.errors import AgentRunnerError
from agent_runner.server_link import is_loopback
from daemon.errors import BusyError, InvalidConfigError
from daemon.local.children import AGENT_RUNNER, agent_config, server_config
from daemon.local.environment import child_environment
from daemon.local.identities import FOREGROUND, living_processes, remove_stale_files
from daemon.local.launch import in_memory
from daemon.local.lock import take_lock
from daemon.local.token import ensure_token
from daemon.paths import StateDir
from daemon.staging_config import AgentStaging, ServerStaging
from daemon.supervisor import pid_files
from daemon.supervisor.spawning import new_nonce

JOB_SERVER = "job-server"


def run_server(state: StateDir, config: ServerStaging, env: Mapping[str, str]) -> NoReturn:
    """Become the job server of a state directory; never returns.

    Raises:
        InvalidConfigError: Tokens would cross a network in clear.
        StateDirError: The state directory cannot be used.
        BusyError: Something runs in it already.
    """
    host = config.listen.rpartition(":")[0].strip("[]")
    if host and not (config.tls_certificate or config.insecure or is_loopback(host)):
        raise InvalidConfigError(
            f"--listen {config.listen} is reached from other machines, and tokens would go there in clear: "
            "give --tls-certificate and --tls-key, or say --insecure"
        )
    lock_fd = _claim(state)
    settings = server_config(state, config.local)._replace(
        listen=config.listen,
        tls_certificate=config.tls_certificate,
        tls_key=config.tls_key,
        tls_client_ca=config.tls_client_ca,
        insecure=config.insecure,
    )
    payload = {"token": ensure_token(state), "mode": config.local.mode, **_service(state, env)}
    _become(state, JOB_SERVER, child_environment(env, {}) | settings.to_env(), payload, lock_fd)


def run_agent_runner(
    state: StateDir,
    config: AgentStaging,
    env: Mapping[str, str],
    token: str,
    store: Mapping[str, str],
) -> NoReturn:
    """Become the agent-runner of a state directory; never returns.

    Args:
        state: Where it keeps what the server has not acknowledged, and its workspaces.
        config: What it runs with.
        env: The caller's environment, of which next to nothing lives on.
        token: What it shows to the server.
        store: The secret store: ``path``, and ``key`` in hexadecimal if it was unlocked.

    Raises:
        InvalidConfigError: The token would cross a network in clear.
        StateDirError, BusyError: As ``run_server``.
    """
    settings = _agent_settings(state, config)
    try:
        settings.server.check()
    except AgentRunnerError as error:
        raise InvalidConfigError(str(error)) from None
    lock_fd = _claim(state)
    payload = {"token": token, "secrets": {}, "store": dict(store), **_service(state, env)}
    _become(state, AGENT_RUNNER, child_environment(env, {}) | settings.to_env(), payload, lock_fd)


def _agent_settings(state: StateDir, config: AgentStaging) -> AgentRunnerConfig:
    return agent_config(state, config.local, 1)._replace(
        name=config.name,
        endpoint=config.server,
        labels=config.labels,
        projects=config.projects,
        tls_ca=config.tls_ca,
        tls_certificate=config.tls_certificate,
        tls_key=config.tls_key,
        insecure=config.insecure,
        drain_timeout_s=config.local.drain_timeout_s,
    )


def _claim(state: StateDir) -> int:
    """Take the lock of a state directory, and make its folders."""
    lock_fd = take_lock(state)
    if lock_fd is None:
        living = living_processes(state)
        who = ", ".join(f"{name} pid {one.pid}" for name, one in living.items()) or "another start"
        raise BusyError(
            f"{state.root} is in use by {who}: every process of staging needs a --state-dir of its own"
        )
    state.prepare()
    remove_stale_files(state)
    return lock_fd


def _service(state: StateDir, env: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``ServiceHandover`` is told."""
    service = {
        "root": str(state.root),
        "runtime": str(state.runtime),
        "notify_socket": env.get("NOTIFY_SOCKET", ""),
    }
    return {"service": service}


def _become(
    state: StateDir, role: str, env: Mapping[str, str], payload: Mapping[str, Any], lock_fd: int
) -> NoReturn:
    nonce = new_nonce()
    handover_fd = in_memory(payload)
    descriptors = {HANDOVER_FD: str(handover_fd), LOCK_FD: str(lock_fd)}
    for fd in (handover_fd, lock_fd):
        os.set_inheritable(fd, True)
    identity = pid_files.identify(os.getpid(), nonce)
    if identity is not None:
        pid_files.write(state.pid_file(role), identity)
    os.chdir("/")
    argv = [sys.executable, "-P", "-m", FOREGROUND, role, "--instance", nonce]
    os.execve(argv[0], argv, {**env, **descriptors})  # noqa: S606 - no shell is wanted
