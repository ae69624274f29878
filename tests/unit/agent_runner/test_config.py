"""The environment contract of the agent-runner."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.config import ENV_PREFIX, PULL_POLICIES, TIERS, AgentRunnerConfig
from agent_runner.container_policy import NESTINGS, ContainerPolicy, Registry
from agent_runner.errors import InvalidConfigError
from sandbox.errors import SandboxUnavailableError

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
PATHS = st.from_regex(r"/[A-Za-z0-9 ._-]{1,40}", fullmatch=True).map(Path)
CONFIGS = st.builds(
    lambda **fields: AgentRunnerConfig(**fields),  # noqa: PLW0108 - of the class itself it would make up the rest
    name=NAMES,
    endpoint=st.sampled_from(["unix:/run/x.sock", "127.0.0.1:50051"]),
    tls_ca=st.none() | PATHS,
    tls_certificate=st.none() | PATHS,
    tls_key=st.none() | PATHS,
    insecure=st.booleans(),
    projects=st.sampled_from([(), ("web",), ("default", "web-2")]),
    spool_dir=PATHS,
    workspace_dir=PATHS,
    owner_label=NAMES,
    mode=st.sampled_from(["local", "cloud"]),
    slots=st.integers(1, 256),
    warm_slots=st.integers(0, 256),
    sandbox_tier=st.sampled_from(TIERS),
    allow_unsandboxed=st.booleans(),
    container_engine=st.sampled_from(["", "unix:///run/docker.sock", "tcp://engine:2376"]),
    container_certs=st.none() | PATHS,
    container_image=st.sampled_from(["", "registry:5000/team/tool:1"]),
    container_pull=st.sampled_from(PULL_POLICIES),
    containers=st.builds(
        ContainerPolicy,
        cache=st.booleans(),
        nested=st.sampled_from(NESTINGS),
        extra_hosts=st.lists(st.sampled_from(["a=10.1.2.3", "b=host-gateway"])).map(tuple),
        registries=st.lists(
            st.builds(Registry, host=NAMES, username=NAMES, password=NAMES), max_size=2
        ).map(tuple),
        execution_mode=st.dictionaries(NAMES, st.sampled_from(["docker", "local"]), max_size=2),
    ),
    labels=st.dictionaries(
        NAMES, st.from_regex(r"[A-Za-z0-9._-]{0,10}", fullmatch=True), max_size=3
    ),
    cancel_grace_s=st.floats(0, 1e6),
    drain_timeout_s=st.none() | st.floats(0, 1e6),
)
GOOD = AgentRunnerConfig(
    name="a",
    endpoint="unix:/x",
    spool_dir=Path("/s"),
    workspace_dir=Path("/w"),
    owner_label="o",
)


@given(CONFIGS)
def test_round_trip(config: AgentRunnerConfig) -> None:
    """What is written to the environment is read back as it was."""
    assert AgentRunnerConfig.from_env(config.to_env()) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NAME", ""),
        ("NAME", "a b"),
        ("SLOTS", "0"),
        ("SLOTS", "2.5"),
        ("SLOTS", "many"),
        ("SLOTS", "nan"),
        ("SANDBOX_TIER", "strong"),
        ("ALLOW_UNSANDBOXED", "1"),
        ("LABELS", "a"),
        ("CANCEL_GRACE_S", "-1"),
        ("CANCEL_GRACE_S", "inf"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    """The error names the variable."""
    with pytest.raises(InvalidConfigError, match=ENV_PREFIX + name):
        AgentRunnerConfig.from_env({**GOOD.to_env(), ENV_PREFIX + name: value})


@pytest.mark.parametrize(("mode", "kind"), [("local", "filesystem"), ("cloud", "container")])
def test_the_mode_decides_the_sandbox(mode: str, kind: str) -> None:
    """By the methods that the seed generation had; nothing else of the configuration depends on it."""
    config = GOOD._replace(mode=mode, container_certs=Path("/c"), container_image="tool:1")
    sandbox = config.get_sandbox_config()
    assert config.is_local_mode() is (mode == "local")
    assert (sandbox.kind, sandbox.root, sandbox.owner_label) == (kind, Path("/w"), "o")
    assert sandbox.container.ca_file == Path("/c/ca.pem")
    assert sandbox.container.engine == "unix:///var/run/docker.sock"


def test_no_such_mode() -> None:
    """The error names those that there are."""
    with pytest.raises(SandboxUnavailableError, match="local, cloud"):
        GOOD._replace(mode="sky").get_sandbox_config()
