"""What the operator decides about containers: the engine, its certificates, the image, and the fuses of the host."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.container.registries import Logins
from sandbox.errors import EngineUnusableError
from sandbox.limits import GIB

DEFAULT_ENGINE = "unix:///var/run/docker.sock"
DEFAULT_PIDS = 4096
DEFAULT_MEMORY_SHARE = 0.75
"""Of the engine's memory, for a job that names no bound: one job must not take the host down."""
DEFAULT_SCRATCH_BYTES = 1 * GIB

_TCP = re.compile(r"tcp://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})/?")


class PullPolicy(enum.StrEnum):
    """When an image is fetched from its registry."""

    ALWAYS = "always"
    """Before every sandbox; what is here already is only checked."""
    MISSING = "missing"
    NEVER = "never"


class Nesting(enum.StrEnum):
    """Which engine of containers a job has inside its own."""

    NONE = "none"
    DIND = "dind"
    """One of its own: the job is root, with every right of the kernel."""
    DOOD = "dood"
    """That of the host, by its socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAddress:
    """Where an engine listens."""

    socket: str = ""
    """Path of its unix socket; empty for TCP."""
    url: str = ""
    """``https://host:port``, or ``http://…`` on loopback; empty for a unix socket."""

    @classmethod
    def parse(cls, text: str, *, tls: bool) -> EngineAddress:
        """Read an address as ``DOCKER_HOST`` has it.

        Raises:
            SandboxUnavailableError: It is no ``unix://`` or ``tcp://`` address, or TCP beyond loopback without TLS:
                whoever reaches that port is root of the host.
        """
        if text.startswith("unix:///"):
            return cls(socket=text.removeprefix("unix://"))
        match = _TCP.fullmatch(text)
        if match is None:
            raise EngineUnusableError(
                f"{text!r} is no address of a container engine: use unix:///path or tcp://host:port"
            )
        host, port = match["host"], match["port"]
        if not tls and host not in {"127.0.0.1", "[::1]", "localhost"}:
            raise EngineUnusableError(
                f"the container engine at {text} is reached over a network: give a CA, a certificate and a key"
            )
        return cls(url=f"{'https' if tls else 'http'}://{host}:{port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSettings:
    """Everything that a ``ContainerProvider`` is told at start."""

    engine: str = DEFAULT_ENGINE
    ca_file: Path | None = None
    """Whom the engine's certificate must be signed by. With it, TCP is TLS."""
    cert_file: Path | None = None
    key_file: Path | None = None
    image: str = ""
    """For jobs that name none."""
    pull: PullPolicy = PullPolicy.MISSING
    network: str = "default"
    """The engine's network for jobs that may reach other hosts."""
    pids: int = DEFAULT_PIDS
    """Bound for jobs that name none."""
    memory_bytes: int | None = None
    """Bound for jobs that name none; None takes a share of what the engine has."""
    scratch_bytes: int = DEFAULT_SCRATCH_BYTES
    """Size of each of ``/tmp``, ``/run`` and the home; they count as memory once used."""
    cache: bool = False
    """Whether every job has its project's cache at ``/cache``, also one that does not ask."""
    cache_prefix: str = "runner-cache"
    """Begins the names of the volumes that are caches; installations that share an engine have different ones."""
    nested: Nesting = Nesting.NONE
    """What jobs may ask for."""
    allow_privileged: bool = False
    """Whether ``dind`` is really meant."""
    slots: int = 1
    """How many jobs there are at once on the engine, of one operator."""
    extra_hosts: tuple[str, ...] = ()
    """``NAME=ADDRESS`` in the ``/etc/hosts`` of jobs with a network; the address ``host-gateway`` is the engine's host."""
    rewrite_localhost: bool = False
    """Whether URLs of loopback in the environment of jobs with a network come to name the engine's host."""
    logins: Logins | None = field(default=None, compare=False, repr=False)
    """Tells who we are to registries of images."""
    away: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    """Told why the engine does not answer, and with an empty text that it does again; see ``EngineHealth``."""
    image_memory: Path | None = None
    """The file of ``ImageMemory``."""
    init_path: str = "/sbin/docker-init"
    """Where the engine mounts its init into a container; tried out by ``probe``."""
