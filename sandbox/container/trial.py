"""Runs a first container behind every wall, so that what an engine cannot do shows before there is a job."""

from __future__ import annotations

import secrets
from dataclasses import replace

from sandbox.base import Network, SandboxRequest
from sandbox.container import hardening
from sandbox.container.engine import Engine
from sandbox.container.host import Host
from sandbox.container.settings import ContainerSettings
from sandbox.errors import SandboxBrokenError

_INIT_OF_PODMAN = "/run/podman-init"
_passed: set[tuple[str, ContainerSettings]] = set()
"""The engines, by their own id, that this process has tried: a lost connection changes nothing about them."""


async def try_walls(
    engine: Engine, host: Host, settings: ContainerSettings, fuses: hardening.Fuses, owner: str
) -> None:
    """Run the engine's own init, the one program that is in every container, without a network; once per engine.

    Raises:
        SandboxError: It did not end with 0; the reason is the engine's.
    """
    if (host.engine_id, settings) in _passed:
        return
    init = _INIT_OF_PODMAN if engine.is_podman else settings.init_path
    name = f"probe-{secrets.token_hex(6)}"
    marks = hardening.labels(owner, "", SandboxRequest(name=name))
    config = hardening.job(
        host.holder_image,
        [init, "--version"],
        settings=replace(settings, network="none"),
        network=Network.OFF,
        fuses=fuses,
        mounts=[],
        marks=marks,
        podman=engine.is_podman,
    )
    container = f"runner-{name}"
    try:
        await engine.create(container, config)
        await engine.start(container)
        code = await engine.wait(container)
    finally:
        await engine.remove(container)
    if code != 0:
        raise SandboxBrokenError(f"a first container ended with {code}; see the log of the engine")
    _passed.add((host.engine_id, settings))
