"""The maker of container sandboxes, on one engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from typing import Any

from sandbox.base import Capabilities, Network, SandboxInfo, SandboxRequest, Tier, Wall
from sandbox.container import hardening
from sandbox.container.engine import Engine, label_filter
from sandbox.container.host import Host
from sandbox.container.images import Image, PullProgress, obtain
from sandbox.container.sandbox import ContainerSandbox
from sandbox.container.settings import DEFAULT_MEMORY_SHARE, ContainerSettings
from sandbox.container.trial import try_walls
from sandbox.container.workspace_image import workspace_image
from sandbox.errors import (
    ImageMissingError,
    SandboxBrokenError,
    SandboxError,
    SandboxUnavailableError,
)
from sandbox.limits import KeptLimit, Limits

KIND = "container"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")

_NOT_HELD = tuple(wall for wall in Wall if wall.value in {"protect", "syscalls"})
"""A volume is one mount, so a checkout inside it is the job's to change; and the filter of the engine's own leaves more of the
kernel open than ours."""

logger = logging.getLogger(__name__)


class ContainerProvider:
    """Makes sandboxes on one engine. One per process; see ``SandboxProvider``."""

    kind = KIND

    def __init__(
        self,
        settings: ContainerSettings,
        *,
        owner_label: str,
        state_folder: str = "",
        on_progress: Callable[[PullProgress], None] | None = None,
    ) -> None:
        """Remember where and how; the engine is not reached before ``probe`` or ``reap``.

        Args:
            settings: The operator's.
            owner_label: Names this agent-runner in the engine, the same after a restart.
            state_folder: Labels what is made, for a person who looks.
            on_progress: Told what a registry says while an image comes.
        """
        self._settings = settings
        self._owner_label = owner_label
        self._state_folder = state_folder
        self._on_progress = on_progress
        self._engine: Engine | None = None
        self._host: Host | None = None
        self._live: dict[str, ContainerSandbox] = {}
        self._opening = asyncio.Lock()

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
        return Capabilities(kind=KIND, tier=Tier.CONTAINER, walls_not_held=_NOT_HELD)

    async def create(self, request: SandboxRequest) -> ContainerSandbox:
        """Make an empty sandbox; see ``SandboxProvider.create``.

        Raises:
            ImageMissingError: The image is neither here nor to be had.
        """
        host = await self._tried()
        await self._remove_left()
        self._check(request)
        _check_required(request, limits := host.kept(request.limits))
        name = request.image or self._settings.image
        if not name:
            raise ImageMissingError("the job names no container image, and no default is set")
        engine = await self._connected()
        image = await obtain(engine, name, self._settings.pull, self._on_progress)
        self._check(request)  # another of this name may have come while the image did
        sandbox = ContainerSandbox(
            engine,
            request,
            owner_label=self._owner_label,
            state_folder=self._state_folder,
            settings=self._settings,
            info=_record(limits, image),
            image=image,
            fuses=self._fuses(request.limits, host),
            on_destroyed=self._forget,
        )
        self._live[request.name] = sandbox
        try:
            await sandbox.prepare(host.holder_image)
        except BaseException:
            await sandbox.destroy()
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
        for name, sandbox in list(self._live.items()):
            try:
                await sandbox.destroy()
            except SandboxError as error:
                logger.warning(
                    "A sandbox could not be removed",
                    extra={"action": "sandbox_not_removed", "sandbox": name, "error": str(error)},
                )
        self._host = None
        # With what is left the connection stays, for the next try.
        if self._engine is not None and not self._live:
            await self._engine.close()
            self._engine = None

    async def _remove_left(self) -> None:
        """Try again to remove what could not be removed, because the engine was away: it may be back."""
        for sandbox in [each for each in self._live.values() if each.is_left]:
            with contextlib.suppress(SandboxError):
                await sandbox.destroy()

    def _forget(self, name: str) -> None:
        self._live.pop(name, None)

    async def _connected(self) -> Engine:
        async with self._opening:
            if self._engine is None:
                engine = Engine(self._settings)
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

    async def _tried(self) -> Host:
        if self._host is not None:
            return self._host
        engine = await self._connected()
        async with self._opening:
            if self._host is None:
                facts = await engine.get_json("/info")
                host = Host.of(facts, await workspace_image(engine))
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
        if request.network is Network.HOSTS:
            raise SandboxUnavailableError("a container cannot keep a list of hosts; use on or off")

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


def _record(limits: tuple[KeptLimit, ...], image: Image) -> SandboxInfo:
    return SandboxInfo(
        kind=KIND,
        tier=Tier.CONTAINER,
        walls_not_held=_NOT_HELD,
        limits=limits,
        image=image.digest,
    )


def _check_required(request: SandboxRequest, limits: tuple[KeptLimit, ...]) -> None:
    """Refuse a job that insists on what nothing here holds."""
    missing = [str(kept.limit) for kept in limits if not kept.held]
    missing += [str(wall) for wall in _NOT_HELD]
    refused = [name for name in missing if name in request.require]
    if refused:
        raise SandboxUnavailableError(f"a container here cannot hold: {', '.join(refused)}")
