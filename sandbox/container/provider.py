"""The maker of container sandboxes, on one engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sandbox.base import Capabilities, SandboxInfo, SandboxRequest, Tier
from sandbox.container import hardening
from sandbox.container.engine import Engine, label_filter
from sandbox.container.health import EngineHealth
from sandbox.container.host import Host
from sandbox.container.image_memory import ImageMemory
from sandbox.container.images import Image, Images
from sandbox.container.nesting import check_setting
from sandbox.container.promises import KIND, NOT_HELD, is_shared, promised
from sandbox.container.pull_report import PullReport
from sandbox.container.residents import Residents, Scope
from sandbox.container.sandbox import ContainerSandbox, Parts
from sandbox.container.settings import DEFAULT_MEMORY_SHARE, ContainerSettings, Nesting
from sandbox.container.trial import try_walls
from sandbox.container.workspace_image import workspace_image
from sandbox.errors import (
    ImageMissingError,
    SandboxBrokenError,
    SandboxError,
    SandboxUnavailableError,
)
from sandbox.limits import Limits

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")

LEFT_RETRY_S = 3.0
"""An engine that was away may keep running what was to be removed (``live-restore``), and the job runs again elsewhere."""

logger = logging.getLogger(__name__)


class _ImagePrunedError(Exception):
    """An image that was here is not any more: somebody has removed it in between."""


class ContainerProvider:
    """Makes sandboxes on one engine. One per process; see ``SandboxProvider``."""

    kind = KIND

    def __init__(
        self,
        settings: ContainerSettings,
        *,
        owner_label: str,
        state_folder: str = "",
    ) -> None:
        """Remember where and how; the engine is not reached before ``probe`` or ``reap``.

        Args:
            settings: The operator's.
            owner_label: Names this agent-runner in the engine, the same after a restart.
            state_folder: Labels what is made, for a person who looks.
        """
        self._settings = settings
        self._owner_label = owner_label
        self._state_folder = state_folder
        self._engine: Engine | None = None
        self._health = EngineHealth(self._reconnect, settings.away)
        self._host: Host | None = None
        self._images = Images(settings.pull, settings.logins)
        self._memory = ImageMemory(settings.image_memory)
        self._residents = Residents(settings.slots, _not_removed)
        self._live: dict[str, ContainerSandbox] = {}
        self._opening = asyncio.Lock()
        self._tending: asyncio.Task[None] | None = None

    async def probe(self) -> Capabilities:
        """Find out what the engine is by running a container behind all walls; the answer is kept.

        Raises:
            SandboxUnavailableError: There is no engine, or it cannot do what is needed.
        """
        try:
            await self._tried()
        except SandboxUnavailableError:
            raise
        except SandboxError as error:
            raise SandboxUnavailableError(str(error)) from error
        return Capabilities(kind=KIND, tier=Tier.CONTAINER, walls_not_held=NOT_HELD)

    async def create(self, request: SandboxRequest) -> ContainerSandbox:
        """Make an empty sandbox; see ``SandboxProvider.create``.

        Raises:
            ImageMissingError: The image is neither here nor to be had.
        """
        try:
            return await self._create(request)
        except _ImagePrunedError:
            # What was here a moment ago, of the job or of the workspaces, is looked for and made anew, once.
            self._host = None
        try:
            return await self._create(request)
        except _ImagePrunedError as error:
            raise ImageMissingError(str(error)) from None

    async def _create(self, request: SandboxRequest) -> ContainerSandbox:
        host = await self._tried()
        await self._remove_left()
        self._check(request)
        info = promised(request, self._settings, host)
        engine = await self._connected()
        image = await self._image(engine, request)
        parts = self._parts(engine, request, info, image, self._fuses(request.limits, host))
        resident = None if parts.scope is None else await self._residents.take(parts.scope)
        try:
            self._check(request)  # another of this name may have come while the image did
        except SandboxError:
            if resident is not None and parts.scope is not None:
                self._residents.give(parts.scope, resident)
            raise
        sandbox = ContainerSandbox(parts, request, self._forget, resident)
        self._live[request.name] = sandbox
        self._tend()
        try:
            await sandbox.prepare(host.holder_image)
        except BaseException as error:
            self._images.forget(image.name)
            await sandbox.destroy()
            if isinstance(error, ImageMissingError):
                raise _ImagePrunedError(str(error)) from error
            raise
        return sandbox

    async def reap(self) -> list[str]:
        """Remove every container and volume that an earlier process with this owner label left."""
        engine = await self._connected()
        mine = {"filters": label_filter(f"{hardening.OWNER_LABEL}={self._owner_label}")}
        containers = await engine.get_json("/containers/json", all="true", **mine)
        volumes = (await engine.get_json("/volumes", **mine))["Volumes"] or ()
        names: set[str] = set()
        for each in containers:
            name = each["Labels"].get(hardening.SANDBOX_LABEL, "")
            if name not in self._live and await self._remove_leftover(
                name, engine.remove, each["Id"]
            ):
                names.add(name)
        for each in volumes:
            name = each["Labels"].get(hardening.SANDBOX_LABEL, "")
            if name not in self._live and await self._remove_leftover(
                name, engine.remove_volume, each["Name"]
            ):
                names.add(name)
        return sorted(names)

    async def close(self) -> None:
        """Destroy every sandbox that is left; see ``SandboxProvider.close``."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
            self._tending = None
        for name, sandbox in list(self._live.items()):
            try:
                await sandbox.destroy()
            except SandboxError as error:
                logger.warning(
                    "A sandbox could not be removed",
                    extra={"action": "sandbox_not_removed", "sandbox": name, "error": str(error)},
                )
        await self._residents.close()
        await self._health.close()
        self._host = None
        # With what is left the connection stays, for the next try.
        if self._engine is not None and not self._live:
            await self._engine.close()
            self._engine = None

    def _tend(self) -> None:
        """See to what is left for as long as there is anything, whether or not another job comes."""
        if self._tending is None or self._tending.done():
            self._tending = asyncio.create_task(self._tend_live())

    async def _tend_live(self) -> None:
        while self._live:
            await asyncio.sleep(LEFT_RETRY_S)
            await self._remove_left()

    async def _remove_left(self) -> None:
        """Try again to remove what could not be removed, because the engine was away: it may be back."""
        for sandbox in [each for each in self._live.values() if each.is_left]:
            with contextlib.suppress(SandboxError):
                await sandbox.destroy()

    def _forget(self, name: str) -> None:
        sandbox = self._live.pop(name, None)
        if sandbox is not None and sandbox.has_run:
            self._memory.keep(sandbox.project, sandbox.image_name)

    async def _image(self, engine: Engine, request: SandboxRequest) -> Image:
        """Return the image of a job, which may have to come first; its log tells of that."""
        name = request.image or self._settings.image or self._memory.image_of(request.project)
        if not name:
            raise ImageMissingError(
                "the job names no container image, no default is set, and none has worked for its project yet"
            )
        report = PullReport(name, request.tell or (lambda _: None))
        return await self._images.obtain(engine, name, report)

    def _parts(
        self,
        engine: Engine,
        request: SandboxRequest,
        info: SandboxInfo,
        image: Image,
        fuses: hardening.Fuses,
    ) -> Parts:
        settings = self._settings
        cache = request.cache or settings.cache
        scope = Scope(
            project=request.project,
            image=image.id,
            network=request.network,
            fuses=fuses,
            cache=cache,
        )
        return Parts(
            engine=engine,
            settings=settings,
            owner_label=self._owner_label,
            state_folder=self._state_folder,
            info=replace(info, image=image.digest),
            image=image,
            fuses=fuses,
            cache=f"{settings.cache_prefix}-{request.project}" if cache else "",
            nesting=Nesting(request.nested or "none"),
            residents=self._residents,
            scope=scope if is_shared(request) else None,
        )

    async def _connected(self) -> Engine:
        async with self._opening:
            if self._engine is None:
                engine = Engine(self._settings, self._health.failed)
                try:
                    version = await engine.connect()
                except BaseException:
                    await engine.close()
                    raise
                logger.info(
                    "Connected to a container engine",
                    extra={"action": "engine_connected", "api": version},
                )
                self._engine = engine
            return self._engine

    async def _reconnect(self) -> None:
        """Agree with an engine that was away: another one may have come back, in which the first job tries the walls anew."""
        engine = await self._connected()
        await engine.connect()
        self._host = None

    async def _tried(self) -> Host:
        if self._host is not None:
            return self._host
        engine = await self._connected()
        async with self._opening:
            if self._host is None:
                facts = await engine.get_json("/info")
                check_setting(self._settings)
                image = await workspace_image(engine)
                host = Host.of(facts, image, podman=engine.is_podman)
                await try_walls(
                    engine, host, self._settings, self._fuses(Limits(), host), self._owner_label
                )
                self._host = host
            return self._host

    def _fuses(self, limits: Limits, host: Host) -> hardening.Fuses:
        memory = self._settings.memory_bytes or int(host.memory_bytes * DEFAULT_MEMORY_SHARE)
        return hardening.Fuses.of(
            limits, memory_bytes=memory, cpus=host.cpus, pids=self._settings.pids
        )

    def _check(self, request: SandboxRequest) -> None:
        if _NAME.fullmatch(request.name) is None:
            raise SandboxBrokenError(f"{request.name!r} cannot be the name of a sandbox")
        if request.name in self._live:
            raise SandboxBrokenError(f"there is a sandbox {request.name} already")

    async def _remove_leftover(self, name: str, remove: Callable[[str], Any], what: str) -> bool:
        try:
            await remove(what)
        except SandboxError as error:
            logger.warning(
                "A leftover could not be removed",
                extra={"action": "leftover_not_removed", "sandbox": name, "error": str(error)},
            )
            return False
        return True


def _not_removed(error: SandboxError) -> None:
    logger.warning(
        "A container that waited for jobs could not be removed",
        extra={"action": "resident_not_removed", "error": str(error)},
    )
