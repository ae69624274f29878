"""A sandbox of the container kind: a volume of the engine, and one container per command."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.base import Command, ExecRequest, Network, SandboxInfo, SandboxRequest
from sandbox.container import hardening, launcher
from sandbox.container.command import ContainerCommand
from sandbox.container.engine import Engine
from sandbox.container.failure import Operation
from sandbox.container.images import Image
from sandbox.container.pack import Packer, Packing
from sandbox.container.settings import ContainerSettings
from sandbox.container.unpack import (
    ROOM_FOR_HEADERS,
    check_file,
    check_folder,
    path_parts,
    single_file,
)
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT, JOB_UID, base_env, command_env
from sandbox.errors import CommandNotStartedError, SandboxBrokenError, TransferRefusedError

_FACTS = "X-Docker-Container-Path-Stat"
_VOLUME_TRIES = 20
_VOLUME_WAIT_S = 0.1
"""The engine lets go of a volume a moment after its last container is gone."""


class ContainerSandbox:
    """One volume, mounted at ``/job``. Made by ``ContainerProvider.create``.

    A container that never runs, of an image without a single program, holds the volume and is where files go in and out:
    a link of the job that points outside points at nothing there.
    """

    def __init__(  # noqa: PLR0913  # the parts of one sandbox, joined once
        self,
        engine: Engine,
        request: SandboxRequest,
        *,
        owner_label: str,
        state_folder: str,
        settings: ContainerSettings,
        info: SandboxInfo,
        image: Image,
        fuses: hardening.Fuses,
        on_destroyed: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._name = request.name
        self._network: Network = request.network
        self._settings = settings
        self._info = info
        self._image = image
        self._fuses = fuses
        self._on_destroyed = on_destroyed
        self._marks = hardening.labels(owner_label, state_folder, request)
        self._volume = f"runner-{request.name}"
        self._mount = hardening.workspace_mount(self._volume, self._marks)
        self._holder = ""
        self._container = ""
        """Of the last command."""
        self._command: Command | None = None
        self._destroyed = self._removed = False
        self._lock = asyncio.Lock()
        """Held while something is started, copied or removed, so that no two of them race."""
        self._copying: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._base_env = _environment(request.name, owner_label, image)

    @property
    def is_left(self) -> bool:
        """Tell whether it was to be destroyed, and something of it is still in the engine."""
        return self._destroyed and not self._removed and not self._lock.locked()

    @property
    def info(self) -> SandboxInfo:
        """Return the kind, the bounds and the image."""
        return self._info

    @property
    def job_root(self) -> str:
        """Return ``/job``."""
        return JOB_ROOT

    @property
    def base_env(self) -> Mapping[str, str]:
        """Return the variables that every command has, the image's own included."""
        return self._base_env

    def inside(self, path: str) -> str:
        """Return the path unchanged."""
        return path

    async def prepare(self, holder_image: str) -> None:
        """Make the volume. Called once, by the provider; after a failure ``destroy`` is."""
        config = hardening.holder(holder_image, self._mount, self._marks)
        # The name, so that destroy finds the container even if the id never comes.
        self._holder = f"runner-{self._name}-files"
        await self._engine.create(self._holder, config)

    async def upload(
        self, source: Path, target: str, left_out: frozenset[str] = frozenset()
    ) -> None:
        """Copy the content of a host folder below the job root; see ``Sandbox.upload``."""
        parts = path_parts(target)
        # What is trusted belongs to root, who is nobody in a container of ours.
        trusted = parts[:1] == ("ci",)
        packer = Packer(
            owner=0 if trusted else JOB_UID,
            mode_mask=0o755 if trusted else 0o777,
            left_out=left_out,
        )
        async with self._lock:
            self._refuse_destroyed()
            if not await asyncio.to_thread(source.is_dir):
                raise TransferRefusedError(f"{source} is no folder")
            copying = asyncio.ensure_future(self._put(packer, source, parts))
            self._copying = copying
            try:
                await copying
            except asyncio.CancelledError:
                copying.cancel()
                await asyncio.wait({copying})
                if self._destroyed:
                    self._refuse_destroyed()
                raise
            finally:
                self._copying = None

    async def download(self, path: str, limit_bytes: int) -> bytes:
        """Read a regular file below the job root; see ``Sandbox.download``."""
        parts = path_parts(path)
        if not parts:
            raise TransferRefusedError(f"{path!r} is no regular file")
        for depth in range(1, len(parts)):
            check_folder(await self._facts(parts[:depth]), "/".join(parts[:depth]))
        check_file(await self._facts(parts), path, limit_bytes)
        archive = bytearray()
        async with self._engine.stream(
            Operation.COPY_OUT,
            "GET",
            f"/containers/{self._holder}/archive",
            path,
            params={"path": "/".join((JOB_ROOT, *parts))},
        ) as answer:
            async for piece in answer.aiter_raw():
                archive += piece
                if len(archive) > limit_bytes + ROOM_FOR_HEADERS:
                    raise TransferRefusedError(f"{path!r} is larger than {limit_bytes} bytes")
        return single_file(bytes(archive), parts[-1], limit_bytes)

    async def exec(self, request: ExecRequest) -> Command:
        """Start one command; see ``Sandbox.exec``."""
        marker = launcher.new_marker()
        try:
            request.check()
            env = command_env(self._base_env, request.env)
            environment = launcher.environment(env, self._image.env, marker)
        except ValueError as error:
            self._refuse_destroyed()
            return EndedCommand(CommandNotStartedError(str(error)))
        async with self._lock:
            self._refuse_destroyed()
            if self._container:
                await self._engine.remove(self._container)
                self._container = ""
            self._command = await self._start(request, launcher.words(request, marker), environment)
            return self._command

    async def destroy(self) -> None:
        """Kill what runs, then remove the containers and the volume; see ``Sandbox.destroy``."""
        self._destroyed = True
        if self._copying is not None:
            self._copying.cancel()
        if self._command is not None:
            await self._command.kill()
        async with self._lock:
            if self._removed:
                return
            if self._command is not None:
                await self._command.kill()
            containers = [each for each in (self._container, self._holder) if each]
            await asyncio.gather(*map(self._engine.remove, containers))
            await self._remove_volume()
            self._removed = True
            self._on_destroyed(self._name)

    async def _start(self, request: ExecRequest, words: list[str], environment: bytes) -> Command:
        config = hardening.job(
            self._image.id,
            words,
            settings=self._settings,
            network=self._network,
            fuses=self._fuses,
            mounts=[self._mount],
            marks=self._marks,
        )
        name = f"runner-{self._name}-{next(self._numbers)}"
        self._container = name
        container = await self._engine.create(name, config)
        attachment = await self._engine.attach(container)
        try:
            await self._engine.start(container)
        except BaseException:
            await attachment.close()
            raise
        return ContainerCommand(
            engine=self._engine,
            container=container,
            attachment=attachment,
            request=request,
            environment=environment,
        )

    async def _put(self, packer: Packer, source: Path, parts: tuple[str, ...]) -> None:
        packing = Packing(packer.pieces(source, parts))
        try:
            await self._engine.put_archive(
                self._holder, JOB_ROOT, packing.stream(), "/".join(parts)
            )
        finally:
            await asyncio.to_thread(packing.close)

    async def _facts(self, parts: tuple[str, ...]) -> str:
        headers = await self._engine.path_facts(self._holder, "/".join((JOB_ROOT, *parts)))
        if headers is None:
            raise FileNotFoundError("/".join(parts))
        return str(headers.get(_FACTS, ""))

    async def _remove_volume(self) -> None:
        for _ in range(_VOLUME_TRIES):
            if await self._engine.remove_volume(self._volume):
                return
            await asyncio.sleep(_VOLUME_WAIT_S)
        raise SandboxBrokenError(f"the volume {self._volume} cannot be removed: it is in use")

    def _refuse_destroyed(self) -> None:
        if self._destroyed:
            raise SandboxBrokenError(f"the sandbox {self._name} was destroyed")


def _environment(name: str, owner: str, image: Image) -> dict[str, str]:
    """Return what every command has: the image's variables and ours, but where its programs are only the image knows."""
    own = base_env(
        name=name, owner=owner, job_root=JOB_ROOT, home=hardening.HOME, tmp=hardening.TMP
    )
    theirs = {name: value for name, value in image.env.items() if launcher.can_carry(name)}
    path = {"PATH": theirs["PATH"]} if theirs.get("PATH") else {}
    return {**theirs, **own, **path}
