"""How the container engine of a configuration is reached. For commands that ask it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daemon.config import Value
from sandbox.container.settings import DEFAULT_ENGINE, ContainerSettings, PullPolicy


def container_settings(config: Mapping[str, Value]) -> ContainerSettings:
    """Return the engine, its certificates, the image and the pull policy that are set."""
    certs = str(config["local.container_certs"].value)
    folder = Path(certs) if certs else None
    return ContainerSettings(
        engine=str(config["local.container_engine"].value) or DEFAULT_ENGINE,
        ca_file=folder and folder / "ca.pem",
        cert_file=folder and folder / "cert.pem",
        key_file=folder and folder / "key.pem",
        image=str(config["local.container_image"].value),
        pull=PullPolicy(str(config["local.container_pull"].value)),
    )
