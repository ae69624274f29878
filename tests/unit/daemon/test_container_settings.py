"""The table ``containers`` of the configuration: what is taken, what is refused, and that no password is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_runner.container_policy import ContainerPolicy, Registry
from agent_runner.job_spec import JobSpec
from agent_runner.sandbox_spec import SandboxSpec
from daemon.config import local_config
from daemon.errors import InvalidConfigError

FILE = """
[containers]
cache = true
nested = "dood"
extra_hosts = ["db.test=10.1.2.3", "up.test=host-gateway"]
rewrite_localhost = true
[containers.execution_mode]
web = "docker"
cli = "local"
[[containers.registries]]
host = "registry.test:5000"
username = "bot"
password = "${secret:registry/test:TOKEN}"
"""


def policy(tmp_path: Path, text: str, **env: str) -> ContainerPolicy:
    """Return what a configuration says."""
    (tmp_path / "config.toml").write_text(text)
    return local_config({"RUNNER_CONFIG": str(tmp_path / "config.toml"), **env}, {}).containers


def test_the_file(tmp_path):
    """Every setting arrives, and survives the way to the agent-runner."""
    found = policy(tmp_path, FILE)
    password = "${secret:registry/test:TOKEN}"
    assert found == ContainerPolicy(
        cache=True,
        nested="dood",
        extra_hosts=("db.test=10.1.2.3", "up.test=host-gateway"),
        rewrite_localhost=True,
        registries=(Registry(host="registry.test:5000", username="bot", password=password),),
        execution_mode={"web": "docker", "cli": "local"},
    )
    assert ContainerPolicy.from_json(found.to_json()) == found
    assert policy(tmp_path, "") == ContainerPolicy()


def test_the_environment(tmp_path):
    """Lists and tables can be written in one line."""
    found = policy(
        tmp_path,
        FILE,
        RUNNER_CONTAINER_EXTRA_HOSTS="a.test=::1,b.test=10.0.0.1",
        RUNNER_CONTAINER_EXECUTION_MODE="web=local",
        RUNNER_CONTAINER_REGISTRIES='[{"host": "r", "username": "u", "password": "${secret:a:B}"}]',
    )
    assert found.extra_hosts == ("a.test=::1", "b.test=10.0.0.1")
    assert found.execution_mode == {"web": "local"}
    assert [each.host for each in found.registries] == ["r"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('nested = "both"', "expected one of none, dind, dood"),
        ('extra_hosts = ["db.test"]', "NAME=ADDRESS"),
        ('extra_hosts = ["db.test=10.0.0.1 evil"]', "NAME=ADDRESS"),
        ('execution_mode = {web = "vm"}', "docker or local"),
        ('registries = "x"', "list of"),
        ('registries = [{host = "r", username = "u"}]', "needs host, username and password"),
        (
            'registries = [{host = "https://r", username = "u", password = "${secret:a:B}"}]',
            "without https://",
        ),
        (
            'registries = [{host = "r", username = "u", password = "canary-77"}]',
            "must be a reference",
        ),
        ("caches = true", "did you mean 'containers.cache'"),
    ],
)
def test_what_is_refused(tmp_path, text, expected):
    """One line that says what was expected; a password that was written there is not in it."""
    with pytest.raises(InvalidConfigError, match=expected) as refused:
        policy(tmp_path, f"[containers]\n{text}\n")
    assert "canary" not in str(refused.value)


def test_where_the_jobs_of_a_project_run():
    """As the operator says, unless a job names a kind itself."""
    modes = ContainerPolicy(execution_mode={"web": "docker", "default": "local"})
    for project, asked, kind in (
        ("web", "auto", "container"),
        ("", "auto", "filesystem"),
        ("other", "auto", "auto"),
        ("web", "filesystem", "filesystem"),
    ):
        spec = JobSpec(argv=("true",), project=project, sandbox=SandboxSpec(kind=asked))
        assert modes.placed(spec).sandbox.kind == kind
