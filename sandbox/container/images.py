"""Images: which one a job runs on, by digest, and how it gets here."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from sandbox.container.engine import REQUEST_S, Engine
from sandbox.container.failure import Operation, classify
from sandbox.container.pull_report import PullProgress, PullReport
from sandbox.container.registries import Logins, RegistryLogin, registry_of
from sandbox.container.settings import PullPolicy
from sandbox.errors import ImageMissingError, SandboxError

PULL_IDLE_S = 300.0
"""A registry that says nothing for so long is given up."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:[:/@][A-Za-z0-9][A-Za-z0-9._-]*)*")
"""What a name can be at most: it becomes a part of an address, and comes from a job."""
MAX_NAME = 500
RECENT_S = 2.0
"""For so long an answer about an image holds: jobs that follow each other do not ask for each."""
_AUTH = "X-Registry-Auth"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is here."""

    name: str
    """As the job names it."""
    id: str
    """``sha256:…`` of its configuration: what runs, whatever the name means tomorrow."""
    digest: str
    """``repository@sha256:…`` as the registry knows it; the id for one that was made here."""
    env: dict[str, str]
    """What it sets for every command."""
    volumes: tuple[str, ...] = ()
    """Folders of its own that are writable although its root is not."""


class Images:
    """The images of one engine. One per provider; what was asked a moment ago is not asked again."""

    def __init__(self, policy: PullPolicy, logins: Logins | None) -> None:
        self._policy = policy
        self._logins = logins
        self._seen: dict[str, tuple[float, Image]] = {}

    async def obtain(self, engine: Engine, name: str, report: PullReport) -> Image:
        """Return an image; see ``obtain``. Called once per sandbox."""
        now_s = time.monotonic()
        seen_s, image = self._seen.get(name, (-RECENT_S, None))
        if image is not None and now_s - seen_s < RECENT_S:
            return image
        image = await obtain(engine, name, self._policy, report.take, self._logins)
        report.end()
        if self._policy is not PullPolicy.ALWAYS:
            old = [each for each, (at, _) in self._seen.items() if now_s - at >= RECENT_S]
            for each in old:
                del self._seen[each]
            self._seen[name] = (time.monotonic(), image)
        return image

    def forget(self, name: str) -> None:
        """Ask again the next time: what was known of an image may be wrong."""
        self._seen.pop(name, None)


async def obtain(
    engine: Engine,
    name: str,
    policy: PullPolicy,
    on_progress: Callable[[PullProgress], None] | None = None,
    logins: Logins | None = None,
) -> Image:
    """Return an image, fetched if the policy says so.

    Args:
        engine: Where it is to be.
        name: As a job names it.
        policy: When a registry is asked.
        on_progress: Told what the registry says.
        logins: Tells who we are at a registry; asked only before a pull.

    Raises:
        ImageMissingError: It is neither here nor to be had, or the name is none.
        EngineGoneError: The engine went away.
    """
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        raise ImageMissingError(f"{name!r} is no name of an image")
    if policy is not PullPolicy.ALWAYS:
        try:
            return await inspect(engine, name)
        except ImageMissingError:
            if policy is PullPolicy.NEVER:
                raise
    host = registry_of(name)
    login = None if logins is None else await logins(host)
    try:
        await _pull(engine, name, on_progress, {} if login is None else {_AUTH: login.header(host)})
    except SandboxError as error:
        if login is None:
            raise
        raise _without_password(error, login) from None
    return await inspect(engine, name)


async def inspect(engine: Engine, name: str) -> Image:
    """Return an image that is here.

    Raises:
        ImageMissingError: It is not.
    """
    answer = await engine.call(Operation.INSPECT_IMAGE, "GET", f"/images/{name}/json", subject=name)
    facts: dict[str, Any] = answer.json()
    digests = facts.get("RepoDigests") or [facts["Id"]]
    config = facts.get("Config") or {}
    variables = config.get("Env") or ()
    return Image(
        name=name,
        id=str(facts["Id"]),
        digest=str(digests[0]),
        env=dict(str(variable).partition("=")[::2] for variable in variables),
        volumes=tuple(config.get("Volumes") or ()),
    )


def _without_password(error: SandboxError, login: RegistryLogin) -> SandboxError:
    hidden = type(error)(login.hide(str(error)))
    hidden.never_began = error.never_began
    return hidden


async def _pull(
    engine: Engine,
    name: str,
    on_progress: Callable[[PullProgress], None] | None,
    headers: dict[str, str],
) -> None:
    repository, tag = split_reference(name)
    logger.info("An image is fetched", extra={"action": "image_pull_started", "image": name})
    async with engine.stream(
        Operation.PULL,
        "POST",
        "/images/create",
        name,
        params={"fromImage": repository, "tag": tag},
        headers=headers,
        # Whoever does not even take the request is no registry that is silent.
        timeout=httpx2.Timeout(REQUEST_S, read=PULL_IDLE_S),
    ) as answer:
        async for line in answer.aiter_lines():
            said = _line(line)
            if "error" in said:
                raise classify(Operation.PULL, answer.status_code, str(said["error"]), name)
            if on_progress is not None and "status" in said:
                on_progress(_progress(name, said))
    logger.info("An image was fetched", extra={"action": "image_pulled", "image": name})


def split_reference(name: str) -> tuple[str, str]:
    """Split a name into what the engine wants: the repository, and the tag or digest."""
    repository, at, digest = name.partition("@")
    if at:
        return repository, digest
    head, colon, tag = name.rpartition(":")
    # A colon before the last slash belongs to the port of a registry.
    return (head, tag) if colon and "/" not in tag else (name, "latest")


def _line(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _progress(name: str, said: dict[str, Any]) -> PullProgress:
    detail = said.get("progressDetail") or {}
    return PullProgress(
        image=name,
        layer=str(said.get("id", "")),
        status=str(said["status"]),
        current_bytes=int(detail.get("current", 0)),
        total_bytes=int(detail.get("total", 0)),
    )
