"""What a daemon is told, and what it is not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_runner.config import AgentRunnerConfig
from daemon import VERSION
from daemon.config import LocalConfig, local_config
from daemon.local.children import local_children
from daemon.local.environment import CHILD_PREFIXES, CHILD_VARIABLES, allowed_environment
from daemon.local.first_spawn import handover_payload
from daemon.paths import StateDir
from daemon.server.config import ServerConfig

CONFIG = LocalConfig(
    listen="127.0.0.1:0",
    slots=3,
    sandbox_tier="landlock",
    allow_unsandboxed=True,
    agent_name="alpha",
    drain_timeout_s=7.0,
    secrets=(),
    env_label="dev",
)
NAMES = st.one_of(st.sampled_from(sorted(CHILD_VARIABLES)), st.text(min_size=1), st.just("LC_ALL"))


@given(st.dictionaries(NAMES, st.text()), st.dictionaries(NAMES, st.text()))
def test_only_listed_variables_pass_and_never_a_secret_s(env, secrets):
    """The list decides, and the name of a secret beats the list."""
    passed = allowed_environment(env, secrets)
    assert not set(passed) & set(secrets)
    for name, value in passed.items():
        assert env[name] == value
        assert name in CHILD_VARIABLES or name.startswith(CHILD_PREFIXES)


def test_the_label_of_the_environment_changes_nothing(tmp_path):
    """``ENV`` is a name for people: whatever it says, the processes run with the same."""
    state = StateDir(tmp_path / "s", tmp_path / "r")

    def children(label: str) -> tuple[list[dict[str, Any]], LocalConfig]:
        config = local_config({"ENV": label, "MODE": "cloud"}, {})
        return local_children(state, config, {"ENV": label, "PATH": "/bin"}, {}), config

    dev, as_dev = children("dev")
    for label in ("staging", "prod", "local"):
        made, config = children(label)
        assert made == dev
        assert config == as_dev._replace(env_label=label)


def test_children_get_their_configuration_and_no_secret(tmp_path):
    """Both contracts can be read back; server first; the value of a secret is nowhere."""
    state = StateDir(tmp_path / "s", tmp_path / "r")
    env = {"PATH": "/bin", "KEY": "canary", "HTTPS_PROXY": "http://user:canary@proxy"}
    server, agent = local_children(state, CONFIG, env, {"KEY": "canary"})
    assert ServerConfig.from_env(server["config"]).listen == "127.0.0.1:0"
    config = AgentRunnerConfig.from_env(agent["env"])
    assert (config.slots, config.name, config.endpoint) == (
        3,
        "alpha",
        f"unix:{state.server_socket}",
    )
    assert server["argv"] == [sys.executable, "-P", "-m", "daemon.server"]
    assert agent["argv"] == [sys.executable, "-P", "-m", "agent_runner"]
    assert "canary" not in str((server, agent))
    document = {"token": "t", "secrets": {"KEY": "canary"}}
    assert handover_payload(server, document) == {"token": "t", "config": server["config"]}
    assert handover_payload(agent, document) == document


def test_status_and_the_daemon_s_start_import_little():
    """A status costs no asyncio and no grpc; the daemon spawns before it imports asyncio."""
    for module in ("daemon.local.status", "daemon.__main__"):
        code = f"import sys, {module}; print(*sys.modules)"
        out = subprocess.check_output([sys.executable, "-P", "-c", code])
        loaded = set(out.decode().split())
        assert not loaded & {"asyncio", "grpc", "psutil", "logging"}, module


def test_the_long_lived_processes_load_no_openssl_for_asyncio():
    """It is 4 MB for each of them; the daemon and an agent-runner that rests do without it altogether, hashes included."""
    openssl = {"ssl", "_ssl", "hashlib", "hmac"}
    heavy = {"daemon.__main__, daemon.local.session": openssl, "daemon.server.__main__": {"ssl"}}
    resting = "agent_runner.__main__, sandbox.filesystem.provider, sandbox.filesystem.bubblewrap"
    heavy[f"{resting}, sandbox.filesystem.warm_slots"] = openssl
    for modules, unwanted in heavy.items():
        code = f"import sys, agent_runner.plain_asyncio, {modules}; print(*sys.modules)"
        out = subprocess.check_output([sys.executable, "-P", "-c", code])
        assert not set(out.decode().split()) & unwanted, modules


def test_there_is_one_version():
    """What the code says is what the package is built with."""
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
