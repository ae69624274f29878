"""The files of deploy/ agree with the product: its commands, its variables, its exit codes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
from ruamel.yaml import YAML

from daemon.cli.app import COMMANDS
from daemon.config import SETTINGS, load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
ENV_FILES = sorted((DEPLOY / "config").glob("*.env"))
VARIABLES = {setting.env: setting for setting in SETTINGS}
OTHER_VARIABLES = {"RUNNER_STATE_DIR", "XDG_CONFIG_HOME"}
# systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5), of systemd 252.
DIRECTIVES = {
    "Unit": {"After", "Description", "StartLimitIntervalSec", "Wants"},
    "Service": {
        "AmbientCapabilities",
        "CapabilityBoundingSet",
        "Environment",
        "EnvironmentFile",
        "ExecStart",
        "Group",
        "KeyringMode",
        "LimitNOFILE",
        "LoadCredential",
        "LockPersonality",
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "PrivateUsers",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "RemoveIPC",
        "Restart",
        "RestartPreventExitStatus",
        "RestartSec",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "StateDirectory",
        "StateDirectoryMode",
        "SupplementaryGroups",
        "SystemCallArchitectures",
        "SystemCallErrorNumber",
        "SystemCallFilter",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "Type",
        "UMask",
        "User",
    },
    "Install": {"WantedBy"},
}


def lines_of(path: Path) -> list[str]:
    text = path.read_text()
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def command_of(words: list[str]) -> click.Command:
    """Return the command of some words of a command line, whose flags it must know."""
    module, _, name = COMMANDS[words[0]][0].partition(":")
    command: click.Command = getattr(import_module(module), name)
    if isinstance(command, click.Group):
        inner = command.get_command(click.Context(command), words[1])
        assert inner is not None
        command, words = inner, words[1:]
    command.make_context(words[0], words[1:], resilient_parsing=False)
    return command


def settled(name: str, value: str) -> None:
    """Hold that a variable is one of ours and takes a value."""
    if name not in OTHER_VARIABLES:
        setting = VARIABLES[name]
        assert load({name: value}, {})[setting.key].origin == f"environment {name}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_have_known_directives_and_start_a_command_that_is_there(unit: Path):
    """Each directive in its section, each variable a setting of ours."""
    section = ""
    for line in lines_of(unit):
        if line.startswith("["):
            section = line.strip("[]")
            continue
        name, _, value = line.partition("=")
        assert name in DIRECTIVES[section], line
        if name == "ExecStart":
            program, *words = value.split()
            assert program == "/opt/runner/bin/runner"
            command_of(words)
        if name == "Environment":
            for pair in value.split():
                settled(*pair.replace("%d", "/d").replace("%l-%i", "host-i").split("=", 1))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_started_again_for_as_long_as_it_takes(unit: Path):
    """systemd gives up after five starts in ten seconds otherwise, and an engine may be away for longer."""
    assert "StartLimitIntervalSec=0" in lines_of(unit)


@pytest.mark.parametrize("file", ENV_FILES, ids=lambda path: path.name)
def test_examples_of_variables_are_settings(file: Path):
    """Commented ones, too."""
    for line in re.findall(r"^#?([A-Z_]+=.*)$", file.read_text(), re.MULTILINE):
        settled(*line.split("=", 1))


def test_the_example_of_a_file_can_be_read():
    """Every key is known, and takes its value."""
    values = load({"RUNNER_CONFIG": str(DEPLOY / "config" / "config.toml")}, {})
    assert values["agent_runner.labels"].value == {"zone": "b"}
    assert values["local.slots"].value == 4


def test_compose_runs_commands_and_sets_variables_that_are_there():
    """Whatever it mounts is declared, and no service but an agent-runner gets the engine."""
    document = YAML(typ="safe").load((DEPLOY / "compose.yaml").read_text())
    assert set(document["services"]) == {"server", "agent-1", "agent-2"}
    for name, service in document["services"].items():
        command_of(service["command"])
        for variable, value in service["environment"].items():
            settled(variable, re.sub(r"\$\{.*\}", "image", str(value)))
        assert set(service["secrets"]) <= set(document["secrets"])
        mounted = [volume.partition(":")[0] for volume in service["volumes"]]
        assert ("/var/run/docker.sock" in mounted) == name.startswith("agent-")
        assert {volume for volume in mounted if not volume.startswith("/")} <= set(
            document["volumes"]
        )
        if "healthcheck" in service:
            _, program, *words = service["healthcheck"]["test"]
            assert program == "runner"
            command_of(words)


def test_the_dockerfile_installs_what_the_lock_says_and_runs_as_nobody():
    """The user is a number, so that an engine can see that it is not root."""
    lines = lines_of(DEPLOY / "Dockerfile")
    assert lines[0].startswith("ARG BASE=")
    assert "USER 10001:10001" in lines
    assert 'ENTRYPOINT ["/opt/runner/bin/runner"]' in lines
    variables = dict(re.findall(r"(RUNNER_[A-Z_]+)=(\S+)", "\n".join(lines)))
    assert set(variables) <= set(VARIABLES) | OTHER_VARIABLES
