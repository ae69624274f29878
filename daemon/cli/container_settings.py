"""How the container engine of a configuration is reached. For commands that ask it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daemon.config import Value
from daemon.container_settings import container_policy
from sandbox.container.settings import DEFAULT_ENGINE, ContainerSettings, Nesting, PullPolicy


def container_settings(config: Mapping[str, Value]) -> ContainerSettings:
    """Return the engine, its certificates, the image and whatever else is set for jobs, but who we are to registries: see ``registry_passwords``."""
    certs = str(config["local.container_certs"].value)
    folder = Path(certs) if certs else None
    policy = container_policy(lambda key: config[key].value)
    return ContainerSettings(
        engine=str(config["local.container_engine"].value) or DEFAULT_ENGINE,
        ca_file=folder and folder / "ca.pem",
        cert_file=folder and folder / "cert.pem",
        key_file=folder and folder / "key.pem",
        image=str(config["local.container_image"].value),
        pull=PullPolicy(str(config["local.container_pull"].value)),
        cache=policy.cache,
        nested=Nesting(policy.nested),
        allow_privileged=policy.allow_privileged,
        extra_hosts=policy.extra_hosts,
        rewrite_localhost=policy.rewrite_localhost,
    )
