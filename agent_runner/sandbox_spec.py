"""The place where the command of a job runs, as the job asks for it, and the rules for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent_runner.errors import InvalidJobSpecError

KINDS = ("auto", "filesystem", "container")
FALLBACKS = ("", "never", "ask", "allow")
TIERS = ("bwrap", "landlock", "plain")
NETWORKS = ("on", "off", "hosts")
REUSES = ("", "project")
NESTINGS = ("", "dind", "dood")
MAX_HOSTS = 200
MAX_CPUS = 4096.0
MAX_OPEN_FILES = 1 << 20
BOUNDS = ("memory", "cpus", "pids", "disk")
"""What ``sandbox.require`` may name beside the walls, if the job bounds it."""
WALLS = (
    "fs_write",
    "fs_read",
    "processes",
    "protect",
    "syscalls",
    "metadata",
    "tree_kill",
    "network",
    "job_uid",
)
"""The walls of ``sandbox.base.Wall``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """The place where the command runs, as the job asks for it."""

    kind: str = "auto"
    min: str = "landlock"
    network: str = "on"
    memory_bytes: int = 0
    pids: int = 0
    output_bytes: int = 0
    cpus: float = 0.0
    disk_bytes: int = 0
    open_files: int = 0
    hosts: tuple[str, ...] = ()
    """What may be reached, for the network ``hosts``; see ``sandbox.network.rules``."""
    require: tuple[str, ...] = ()
    """Names of ``WALLS`` and ``BOUNDS`` without which the job must not run."""
    unprotected: bool = False
    """Whether what others would run of a checkout may be changed."""
    fallback: str = ""
    """Of ``FALLBACKS``: whether the filesystem sandbox takes the place of a container that cannot be had; empty as ``never``."""
    container_only: tuple[str, ...] = ()
    """Names of variables that no command outside a container gets."""
    reuse: str = ""
    """``project`` consents to a container that jobs of one project use one after the other."""
    nested: str = ""
    """Which engine of containers the job has in its own, ``dind`` or ``dood``, if the operator allows it; empty is none."""
    cache: bool = False
    """Whether the job has the volume of its project at ``/cache``, where it runs in a container."""


def check_sandbox(sandbox: SandboxSpec, env: Mapping[str, str]) -> None:
    """Check the rules of the sandbox. Called for each job that is validated.

    Args:
        sandbox: What a job asks for.
        env: Its variables.

    Raises:
        InvalidJobSpecError: The first rule that is broken.
    """
    for name, value, allowed in (
        ("kind", sandbox.kind, KINDS),
        ("min", sandbox.min, TIERS),
        ("network", sandbox.network, NETWORKS),
        ("reuse", sandbox.reuse, REUSES),
        ("nested", sandbox.nested, NESTINGS),
    ):
        if value not in allowed:
            raise InvalidJobSpecError(
                f"sandbox.{name}", f"must be one of {', '.join(filter(None, allowed))}"
            )
    for name, number in (
        ("memory", sandbox.memory_bytes),
        ("pids", sandbox.pids),
        ("output", sandbox.output_bytes),
        ("disk", sandbox.disk_bytes),
        ("open_files", sandbox.open_files),
    ):
        if number < 0:
            raise InvalidJobSpecError(f"sandbox.{name}", "must not be negative")
    if not 0 <= sandbox.cpus <= MAX_CPUS:
        raise InvalidJobSpecError("sandbox.cpus", f"must lie between 0 and {MAX_CPUS:g}")
    if sandbox.open_files > MAX_OPEN_FILES:
        raise InvalidJobSpecError("sandbox.open_files", f"must be at most {MAX_OPEN_FILES}")
    _check_hosts(sandbox)
    _check_require(sandbox)
    _check_fallback(sandbox, env)


def _check_hosts(sandbox: SandboxSpec) -> None:
    if sandbox.network == "hosts" and not sandbox.hosts:
        raise InvalidJobSpecError("sandbox.network", "lists no host; say off for none")
    if sandbox.network != "hosts" and sandbox.hosts:
        raise InvalidJobSpecError("sandbox.network", "must be hosts to have a list of them")
    if len(sandbox.hosts) > MAX_HOSTS:
        raise InvalidJobSpecError("sandbox.network", f"lists more than {MAX_HOSTS} hosts")
    if sandbox.hosts:
        # Few jobs have a list, and every command line that submits one imports this module.
        from sandbox.network.rules import parse_rule  # noqa: PLC0415

        for position, host in enumerate(sandbox.hosts):
            try:
                parse_rule(host)
            except ValueError as error:
                raise InvalidJobSpecError(f"sandbox.network.{position}", str(error)) from error


def _check_fallback(sandbox: SandboxSpec, env: Mapping[str, str]) -> None:
    if sandbox.fallback not in FALLBACKS:
        raise InvalidJobSpecError("sandbox.fallback", "must be one of never, ask, allow")
    if sandbox.kind == "filesystem" and sandbox.fallback in ("ask", "allow"):
        raise InvalidJobSpecError("sandbox.fallback", "is for containers; the kind is filesystem")
    for position, name in enumerate(sandbox.container_only):
        if name not in env:
            field = f"sandbox.container_only.{position}"
            raise InvalidJobSpecError(field, f"{name!r} is no variable of env")


def _check_require(sandbox: SandboxSpec) -> None:
    asked = {
        "memory": sandbox.memory_bytes,
        "cpus": sandbox.cpus,
        "pids": sandbox.pids,
        "disk": sandbox.disk_bytes,
    }
    for name in sandbox.require:
        if name not in WALLS and name not in BOUNDS:
            known = ", ".join((*WALLS, *BOUNDS))
            raise InvalidJobSpecError("sandbox.require", f"{name!r} is none of {known}")
        if name in asked and not asked[name]:
            raise InvalidJobSpecError("sandbox.require", f"{name} needs a bound in sandbox.{name}")
