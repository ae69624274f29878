"""The line for a shell that runs a container as a job's is run: pure. For people who want to look into it by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def docker_line(
    config: Mapping[str, Any], env: Mapping[str, str], named_only: Collection[str], cwd: str
) -> list[str]:
    """Return ``docker run …`` for what ``hardening.job`` made.

    Args:
        config: Of the container.
        env: The variables of the command.
        named_only: Those of which only the name is in the line: docker takes the value from its own environment.
        cwd: Where the command starts.
    """
    host = config["HostConfig"]
    words = ["docker", "run", "--rm", *_flag(host.get("Init"), "--init")]
    words += _valued("--user", config["User"])
    words += [part for name in host["CapDrop"] for part in ("--cap-drop", name)]
    words += [part for name in host.get("CapAdd") or () for part in ("--cap-add", name)]
    words += [part for text in host["SecurityOpt"] for part in ("--security-opt", text)]
    words += [
        *_flag(host["ReadonlyRootfs"], "--read-only"),
        *_flag(host["Privileged"], "--privileged"),
    ]
    words += _valued("--network", host["NetworkMode"]) + _valued("--ipc", host["IpcMode"])
    words += _valued("--hostname", config["Hostname"]) + _bounds(host)
    for target, options in host["Tmpfs"].items():
        words += ["--tmpfs", f"{target}:{options}"]
    for mount in host["Mounts"]:
        words += ["--volume", f"{mount['Source']}:{mount['Target']}"]
    for name, value in env.items():
        words += ["--env", name if name in named_only else f"{name}={value}"]
    command = [str(word) for word in (*config["Entrypoint"], *config["Cmd"])]
    return [*words, "--workdir", cwd, "--entrypoint", command[0], config["Image"], *command[1:]]


def _bounds(host: Mapping[str, Any]) -> list[str]:
    words = []
    if host["Memory"]:
        words += ["--memory", str(host["Memory"]), "--memory-swap", str(host["MemorySwap"])]
    if host["NanoCpus"]:
        words += ["--cpus", f"{host['NanoCpus'] / 1e9:g}"]
    words += _valued("--pids-limit", host["PidsLimit"])
    words += _valued("--shm-size", host["ShmSize"])
    for limit in host["Ulimits"]:
        words += ["--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}"]
    return [*words, "--log-driver", host["LogConfig"]["Type"]]


def _valued(option: str, value: object) -> list[str]:
    return [option, str(value)] if value not in (None, "", 0) else []


def _flag(value: object, option: str) -> list[str]:
    return [option] if value else []
