"""Where ``run-local`` and ``parity`` run a job: which kind of sandbox, on which image, and what if there is no container.

Flags come before the job file, the job file before the environment, and that before the configuration.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.output import note, printable
from daemon.config import Value, environ, load
from daemon.container_settings import container_policy
from daemon.errors import UsageError

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec
    from daemon.cli.secret_search import SecretSearch
    from sandbox.container.settings import ContainerSettings

CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFlags:
    """What the command line says; see ``place_options``."""

    sandbox: str = "auto"
    image: str = ""
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the job runs."""

    spec: JobSpec
    """The job, with what was decided written into it."""
    image: str
    """The name of the image, where the job runs in a container; may be empty."""
    image_origin: str
    """Who has named it."""
    config: Mapping[str, Value]

    @property
    def kind(self) -> str:
        """Return ``filesystem`` or ``container``."""
        return self.spec.sandbox.kind

    def container_settings(self, search: SecretSearch | None = None) -> ContainerSettings:
        """Return how the engine is reached.

        Args:
            search: Finds the passwords of registries; None where no image is fetched.
        """
        from daemon.cli.container_settings import container_settings  # noqa: PLC0415 - as late as needed

        settings = container_settings(self.config)
        if search is None or not self.config["containers.registries"].value:
            return settings
        from daemon.cli.registry_passwords import registry_logins  # noqa: PLC0415 - few have any

        policy = container_policy(lambda key: self.config[key].value)
        return replace(settings, logins=registry_logins(policy.registries, search))


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--sandbox`` and ``--fallback``, and what ``image_option`` does, as ``place``."""

    @click.option(
        "--sandbox",
        type=click.Choice(["auto", "filesystem", "container"]),
        default="auto",
        help="Where it runs (default: as the job file says, else as MODE does).",
    )
    @click.option(
        "--fallback",
        type=click.Choice(["never", "ask", "allow"]),
        help="Whether the filesystem sandbox may take the place of a container that cannot be had.",
    )
    @image_option
    @functools.wraps(command)
    def with_place(
        *args: Any, sandbox: str, fallback: str | None, runner_image: str, **kwargs: Any
    ) -> Any:
        flags = PlaceFlags(sandbox=sandbox, image=runner_image, fallback=fallback)
        return command(*args, place=flags, **kwargs)

    return with_place


image_option = click.option(
    "--runner-image",
    metavar="IMAGE",
    default="",
    help="The image of the container (default: the job file's, else RUNNER_IMAGE, else the configured one).",
)


def choose_place(spec: JobSpec, flags: PlaceFlags, *, allow_unsandboxed: bool = False) -> Place:
    """Decide where a job runs.

    Raises:
        InvalidConfigError: A setting is malformed.
        UsageError: The flags do not go together, or name what is no image.
    """
    from agent_runner.errors import InvalidJobSpecError  # noqa: PLC0415
    from sandbox.factory import kind_of_mode  # noqa: PLC0415

    config = load(environ(), {"local.allow_unsandboxed": allow_unsandboxed or None})
    asked = spec.sandbox
    kind = asked.kind if flags.sandbox == "auto" else flags.sandbox
    if kind == "auto" and config["containers.execution_mode"].value:
        kind = container_policy(lambda key: config[key].value).placed(spec).sandbox.kind
    if kind == "auto":
        kind = kind_of_mode(str(config["local.mode"].value))
    if kind != CONTAINER and (flags.image or flags.fallback in ("ask", "allow")):
        raise UsageError(f"--runner-image and --fallback are for containers; this is a {kind} run")
    fallback = flags.fallback or asked.fallback or str(config["local.fallback"].value)
    image, origin = _image(spec, flags, config["local.container_image"])
    chosen = replace(
        spec,
        container_image=image if kind == CONTAINER else spec.container_image,
        sandbox=replace(asked, kind=kind, fallback=fallback if kind == CONTAINER else ""),
    )
    try:
        chosen.validate()
    except InvalidJobSpecError as error:
        raise UsageError(str(error)) from None
    return Place(spec=chosen, image=image, image_origin=origin, config=config)


def _image(spec: JobSpec, flags: PlaceFlags, default: Value) -> tuple[str, str]:
    """Return the name of the image, and who has named it; the first one who has."""
    named = (
        (flags.image, "flag"),
        (spec.container_image, "job file"),
        (str(default.value), default.origin),
    )
    return next((each for each in named if each[0]), ("", ""))


async def ask_person(reason: str) -> bool:
    """Ask at the terminal whether the job may run outside a container; the answer of somebody who leaves is no."""
    import asyncio  # noqa: PLC0415 - a fifth of the start; a dry run and a syntax error do without

    note(f"runner: no container: {printable(reason)}")
    sys.stderr.write("Run the command in the filesystem sandbox of this machine instead? [y/N]: ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()
    terminal = sys.stdin.fileno()

    def read() -> None:
        # A line is complete before a terminal has anything to read.
        if not typed.done():
            typed.set_result(os.read(terminal, 1024))

    loop.add_reader(terminal, read)
    try:
        return (await typed).strip().lower() in (b"y", b"yes")
    finally:
        loop.remove_reader(terminal)
