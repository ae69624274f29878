"""What the operator decides about containers beside the engine and the image, on its way from the configuration to the sandboxes.

Imports nothing of the sandboxes: the daemon only passes it on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_runner.errors import InvalidConfigError
from agent_runner.project_names import DEFAULT_PROJECT

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec

NESTINGS = ("none", "dind", "dood")
KIND_OF_EXECUTION = {"docker": "container", "local": "filesystem"}
"""What ``execution_mode`` of a project stands for."""
REGISTRY_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?")
EXTRA_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*=(host-gateway|[0-9A-Fa-f.:]+)")


class Registry(NamedTuple):
    """Who we are to one registry of images."""

    host: str
    """With its port; ``docker.io`` for Docker's own."""
    username: str
    password: str
    """A reference, ``${secret:path:key}``; never a value."""


class ContainerPolicy(NamedTuple):
    """The table ``containers`` of the configuration."""

    cache: bool = False
    """Whether every job has its project's cache."""
    cache_prefix: str = "runner-cache"
    """Begins the names of the volumes that are caches."""
    agent_runners: int = 1
    """How many of one operator use the engine."""
    nested: str = "none"
    """Of ``NESTINGS``: what jobs may ask for."""
    allow_privileged: bool = False
    extra_hosts: tuple[str, ...] = ()
    """``NAME=ADDRESS`` each."""
    rewrite_localhost: bool = False
    registries: tuple[Registry, ...] = ()
    execution_mode: Mapping[str, str] = MappingProxyType({})
    """``docker`` or ``local`` by project; others run as the mode says."""

    @property
    def local_projects(self) -> tuple[str, ...]:
        """Return the projects whose jobs run outside containers unless they ask for one."""
        modes = self.execution_mode.items()
        return tuple(project for project, mode in modes if KIND_OF_EXECUTION[mode] == "filesystem")

    def document(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        registries = [each._asdict() for each in self.registries]
        modes = dict(self.execution_mode)
        return self._asdict() | {"registries": registries, "execution_mode": modes}

    def to_json(self) -> str:
        """Return the text from which ``from_json`` makes an equal value."""
        return json.dumps(self.document())

    @classmethod
    def from_json(cls, text: str) -> ContainerPolicy:
        """Read what ``to_json`` wrote; an empty text is the default.

        Raises:
            InvalidConfigError: It is nothing of the kind.
        """
        try:
            values: dict[str, Any] = json.loads(text) if text else {}
            registries = tuple(Registry(**each) for each in values.pop("registries", ()))
            hosts = tuple(values.pop("extra_hosts", ()))
            return cls(**values, registries=registries, extra_hosts=hosts)
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidConfigError(f"the settings of containers are malformed: {error}") from None

    def placed(self, spec: JobSpec) -> JobSpec:
        """Return a job with the kind of sandbox that its project runs in, unless it names one itself."""
        mode = self.execution_mode.get(spec.project or DEFAULT_PROJECT)
        if mode is None or spec.sandbox.kind != "auto":
            return spec
        from dataclasses import replace  # noqa: PLC0415 - the command places no job

        return replace(spec, sandbox=replace(spec.sandbox, kind=KIND_OF_EXECUTION[mode]))
