"""An engine of containers for the job's own use, which no wall withstands: the operator allows it, and the job asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sandbox.base import Wall
from sandbox.container.settings import ContainerSettings, EngineAddress, Nesting
from sandbox.errors import SandboxUnavailableError

SOCKET = "/run/docker.sock"
"""Where a job finds the engine of the host."""
_ENGINE_FOLDER = "/var/lib/docker"
WALLS_NOT_HELD = tuple(Wall)
"""Whoever commands an engine, or has every right of the kernel, is root of the host."""


def check_setting(settings: ContainerSettings) -> None:
    """Refuse what the operator must not have set. Called by ``probe``.

    Raises:
        SandboxUnavailableError: Says which setting, and why.
    """
    if settings.nested is Nesting.DOOD:
        if settings.slots > 1:
            raise SandboxUnavailableError(
                f"containers.nested = dood with {settings.slots} slots: jobs that share the engine of the host stop"
                " and remove each other's containers; use one slot, or dind"
            )
        if not EngineAddress.parse(settings.engine, tls=settings.ca_file is not None).socket:
            raise SandboxUnavailableError(
                "containers.nested = dood needs an engine at a unix socket, which jobs can be given"
            )
    if settings.nested is Nesting.DIND and not settings.allow_privileged:
        raise SandboxUnavailableError(
            "containers.nested = dind runs jobs as root with every right of the kernel, which makes them root of the"
            " host: set containers.allow_privileged = true as well if that is meant"
        )


def check_request(asked: str, settings: ContainerSettings) -> Nesting:
    """Return what a job gets.

    Raises:
        SandboxUnavailableError: The operator does not allow it.
    """
    wanted = Nesting(asked or "none")
    if wanted is not Nesting.NONE and wanted is not settings.nested:
        raise SandboxUnavailableError(
            f"the job asks for sandbox.nested = {wanted}, and the operator allows {settings.nested} (containers.nested)"
        )
    return wanted


def changed(
    config: dict[str, Any], nesting: Nesting, settings: ContainerSettings
) -> dict[str, Any]:
    """Return a container with an engine in it, or in its reach."""
    if nesting is Nesting.NONE:
        return config
    host = dict(config["HostConfig"])
    if nesting is Nesting.DOOD:
        socket = EngineAddress.parse(settings.engine, tls=False).socket
        bind = {"Type": "bind", "Source": socket, "Target": SOCKET}
        host |= {"Mounts": [*host["Mounts"], bind], "GroupAdd": [str(Path(socket).stat().st_gid)]}
        return {**config, "HostConfig": host}
    own = {"Type": "volume", "Target": _ENGINE_FOLDER}
    host |= {
        "Privileged": True,
        "CapDrop": [],
        "SecurityOpt": [],
        "ReadonlyRootfs": False,
        "Mounts": [*host["Mounts"], own],
    }
    return {**config, "User": "0:0", "HostConfig": host}


def variables(nesting: Nesting) -> dict[str, str]:
    """Return what a command must know to reach the engine."""
    return {"DOCKER_HOST": f"unix://{SOCKET}"} if nesting is Nesting.DOOD else {}
