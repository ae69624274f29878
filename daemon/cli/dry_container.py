"""What ``run-local --dry-run`` says of a container: the ``docker run`` line, and whether the image is there. Changes nothing."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from agent_runner.sandbox_terms import sandbox_request
from daemon.cli.run_local_place import Place
from sandbox.container import hardening
from sandbox.container.docker_line import docker_line
from sandbox.container.engine import Engine
from sandbox.container.host import Host
from sandbox.container.images import inspect
from sandbox.container.settings import DEFAULT_MEMORY_SHARE, ContainerSettings, PullPolicy
from sandbox.errors import ImageMissingError, SandboxError

if TYPE_CHECKING:
    from agent_runner.job_spec import JobSpec

HERE, PULLED, MISSING, UNNAMED, NO_ENGINE = "here", "pulled", "missing", "unnamed", "no engine"
UNUSABLE = frozenset({MISSING, UNNAMED, NO_ENGINE})
"""With these the command does not run in a container."""
_TEXTS = {
    PULLED: "would be fetched",
    MISSING: "is not here, and would not be fetched",
    UNNAMED: "no image is named: --runner-image, container_image in the job file, or RUNNER_IMAGE does it",
    NO_ENGINE: "cannot be looked for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageState:
    """What is known of the image of a job."""

    name: str
    origin: str
    state: str
    digest: str = ""
    reason: str = ""
    """What the engine said, where something is wrong."""

    def describe(self) -> str:
        """Return it in words."""
        if self.state == UNNAMED:
            return _TEXTS[UNNAMED]
        if self.digest:
            then = "" if self.state == HERE else f", and {_TEXTS[self.state]} anew"
            return f"{self.name} (by {self.origin}) is here{then}: {self.digest}"
        why = f": {self.reason}" if self.reason else ""
        named = f"{self.name} (by {self.origin}) " if self.name else ""
        return f"{named}{_TEXTS[self.state]}{why}"


def look_at_container(place: Place, named_only: Collection[str]) -> dict[str, Any]:
    """Return the line and the state of the image, unmasked; asks the engine, and has it do nothing.

    Args:
        place: Where the job would run.
        named_only: Variables of which only the name is told.
    """
    settings = place.container_settings()
    image, host = asyncio.run(_look(place, settings))
    return {
        "image": {**asdict(image), "text": image.describe()},
        "docker_run": shlex.join(_line(place.spec, settings, image, host, named_only)),
    }


async def _look(place: Place, settings: ContainerSettings) -> tuple[ImageState, Host | None]:
    known = ImageState(name=place.image, origin=place.image_origin, state=UNNAMED)
    host = None
    try:
        engine = Engine(settings)
    except SandboxError as error:
        return replace(known, state=NO_ENGINE, reason=str(error)), None
    try:
        await engine.connect()
        host = Host.of(await engine.get_json("/info"), holder_image="")
        if not place.image:
            return known, host
        found = await inspect(engine, place.image)
        state = PULLED if settings.pull is PullPolicy.ALWAYS else HERE
        return replace(known, state=state, digest=found.digest), host
    except ImageMissingError as error:
        state = MISSING if settings.pull is PullPolicy.NEVER else PULLED
        return replace(known, state=state, reason=str(error) if state == MISSING else ""), host
    except SandboxError as error:
        return replace(known, state=NO_ENGINE, reason=str(error)), host
    finally:
        await engine.close()


def _line(
    spec: JobSpec,
    settings: ContainerSettings,
    image: ImageState,
    host: Host | None,
    named_only: Collection[str],
) -> list[str]:
    request = sandbox_request("JOB", 1, spec)
    memory = settings.memory_bytes or int((host.memory_bytes if host else 0) * DEFAULT_MEMORY_SHARE)
    cpus = host.cpus if host else (spec.sandbox.cpus or 0)
    fuses = hardening.Fuses.of(request.limits, memory_bytes=memory, cpus=cpus, pids=settings.pids)
    config = hardening.job(
        image.name or "IMAGE",
        spec.argv,
        settings=settings,
        network=request.network,
        fuses=fuses,
        mounts=[hardening.workspace_mount("runner-JOB-1", {})],
        marks={},
    )
    env: Mapping[str, str] = spec.env
    return docker_line(config, env, named_only, spec.working_dir)
