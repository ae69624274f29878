"""What the processes of staging run with, and where each value comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.errors import InvalidConfigError, UsageError
from daemon.staging_config import agent_staging, host_name, server_staging

FILE = """
[server]
listen = "10.0.0.1:1"
[agent_runner]
server = "file:1"
name = "file"
labels = {zone = "file", gpu = "yes"}
[local]
slots = 7
"""


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    (tmp_path / "config.toml").write_text(FILE)
    return {"RUNNER_CONFIG": str(tmp_path / "config.toml")}


def test_a_flag_beats_the_environment_which_beats_the_file(env):
    """For both processes, and for what an agent-runner shares with local mode."""
    assert server_staging(env, {}).listen == "10.0.0.1:1"
    assert server_staging(env | {"RUNNER_SERVER_LISTEN": "h:2"}, {}).listen == "h:2"
    assert (
        server_staging(env | {"RUNNER_SERVER_LISTEN": "h:2"}, {"server.listen": "h:3"}).listen
        == "h:3"
    )
    assert agent_staging(env, {}).labels == {"zone": "file", "gpu": "yes"}
    given = env | {"RUNNER_SERVER": "env:1", "RUNNER_LABELS": "zone=a, x=1=2", "RUNNER_SLOTS": "8"}
    config = agent_staging(given, {"agent_runner.name": "flag", "local.slots": "9"})
    assert (config.server, config.name, config.local.slots) == ("env:1", "flag", 9)
    assert config.labels == {"zone": "a", "x": "1=2"}


def test_jobs_of_staging_run_in_containers_unless_told_otherwise():
    """``MODE`` decides, and its default is that of staging; the label ``ENV`` decides nothing."""
    assert agent_staging({}, {}).local.mode == "cloud"
    assert agent_staging({"MODE": "local"}, {}).local.mode == "local"
    assert (
        agent_staging({"ENV": "prod", "MODE": "local"}, {"agent_runner.mode": "cloud"}).local.mode
        == "cloud"
    )
    assert agent_staging({}, {}).name == host_name()


@pytest.mark.parametrize("listen", ["nonsense", ":1", "h:", "h:65536", "h:-1", "[::1:5", "h:1\n"])
def test_no_address(listen):
    """The message says what is expected."""
    with pytest.raises(InvalidConfigError, match="expected"):
        server_staging({"RUNNER_SERVER_LISTEN": listen}, {})


@pytest.mark.parametrize("labels", ["zone", "=b", "zone=", " =", "a b=c"])
def test_no_labels(labels):
    """The message says what is expected, and which flag is meant."""
    with pytest.raises(UsageError, match=r"--labels .*NAME=VALUE"):
        agent_staging({}, {"agent_runner.labels": labels})


def test_files_are_found_from_where_the_command_was_given():
    """The process itself works in another folder."""
    assert agent_staging({"RUNNER_TLS_CA": "ca.pem"}, {}).tls_ca == Path.cwd() / "ca.pem"
    assert agent_staging({}, {}).token_file is None
    assert agent_staging({"RUNNER_SERVER": "unix:s.sock"}, {}).server == f"unix:{Path.cwd()}/s.sock"
    assert agent_staging({"RUNNER_SERVER": "unix:/run/s"}, {}).server == "unix:/run/s"
