"""A sandbox of the container kind: a volume of the engine, and one container per command."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sandbox.base import Command, ExecRequest, SandboxInfo, SandboxRequest
from sandbox.collection import Taker
from sandbox.container import hardening, launcher, nesting
from sandbox.container.command import ContainerCommand
from sandbox.container.engine import Engine
from sandbox.container.first_process import FirstProcess
from sandbox.container.images import Image
from sandbox.container.pack import Packer
from sandbox.container.promises import extra_hosts
from sandbox.container.residents import Resident, Residents, Scope
from sandbox.container.settings import ContainerSettings, Nesting
from sandbox.container.starting import Starting
from sandbox.container.workplace import Workplace
from sandbox.ended_command import EndedCommand
from sandbox.env import JOB_ROOT, JOB_UID, base_env, command_env
from sandbox.errors import (
    CommandNotStartedError,
    SandboxBrokenError,
    SandboxError,
    TransferRefusedError,
)
from sandbox.job_path import path_parts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a sandbox is made of, put together by its provider."""

    engine: Engine
    settings: ContainerSettings
    owner_label: str
    state_folder: str
    info: SandboxInfo
    image: Image
    fuses: hardening.Fuses
    cache: str = ""
    """Name of the volume at ``/cache``; empty for none."""
    nesting: Nesting = Nesting.NONE
    residents: Residents
    scope: Scope | None = None
    """Who may share a container with this sandbox; None if nobody may."""


class ContainerSandbox:
    """One volume, mounted at ``/job``, and a new container for each command. Made by ``ContainerProvider.create``."""

    def __init__(
        self,
        parts: Parts,
        request: SandboxRequest,
        on_destroyed: Callable[[str], None],
        resident: Resident | None,
    ) -> None:
        """Put it together; nothing is made before ``prepare``.

        Args:
            parts: What it is made of.
            request: What was asked for.
            on_destroyed: Told its name once nothing of it is left.
            resident: A container that has served another job of its scope; None makes one.
        """
        self._parts = parts
        self._engine = parts.engine
        self._name = request.name
        self._request = request
        self._on_destroyed = on_destroyed
        self._marks = hardening.labels(parts.owner_label, parts.state_folder, request)
        self._marker = launcher.new_marker()
        self._resident = resident
        self._workplace = (
            Workplace(self._engine, request.name, self._marks, parts.cache)
            if self._resident is None
            else self._resident.workplace
        )
        self._ahead: Starting | None = None
        """The container of the first command, before that is known."""
        self._containers: list[str] = []
        """By name: what is to be removed."""
        self._command: ContainerCommand | None = None
        self._trusted = False
        self._destroyed = self._removed = self._was_cut_off = False
        self._lock = asyncio.Lock()
        """Held while something is started, copied or removed, so that no two of them race."""
        self._copying: asyncio.Future[Any] | None = None
        self._numbers = itertools.count(1)
        self._base_env = _environment(request.name, parts)

    @property
    def is_left(self) -> bool:
        """Tell whether it was to be destroyed, and something of it is still in the engine."""
        return self._destroyed and not self._removed and not self._lock.locked()

    @property
    def has_run(self) -> bool:
        """Tell whether a command has begun."""
        return self._command is not None and self._command.has_begun

    @property
    def project(self) -> str:
        """Return whose job it is."""
        return self._request.project

    @property
    def image_name(self) -> str:
        """Return the image as the job or the operator names it."""
        return self._parts.image.name

    @property
    def info(self) -> SandboxInfo:
        """Return the kind, the bounds and the image."""
        return self._parts.info

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
        """Make the volume, and beside it the container of the first command. Called once, by the provider; after a failure ``destroy`` is."""
        if self._resident is not None:
            return
        making = [self._workplace.make(holder_image)]
        if self._engine.is_podman:  # whoever mounts a volume first makes it
            await making.pop()
        made = await asyncio.gather(*making, self._make_ahead(), return_exceptions=True)
        for one in made:
            if isinstance(one, BaseException):
                raise one
        # It waits for its input, so it can be on its way while there is no source yet; but not before the volume is
        # filled: the engine does that as root, and follows links; the image is the job's.
        if self._ahead is not None:
            self._ahead.begin(self._engine)

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
            self._trusted = self._trusted or trusted
            await self._copied(self._workplace.put(packer, source, parts))

    async def download(self, path: str, limit_bytes: int) -> bytes:
        """Read a regular file below the job root; see ``Sandbox.download``."""
        async with self._lock:
            self._refuse_destroyed()
            return await self._copied(self._workplace.read(path, limit_bytes))

    async def collect(self, path: str, taker: Taker) -> None:
        """Offer the files of a folder; see ``Collecting.collect``."""
        parts = path_parts(path)
        async with self._lock:
            self._refuse_destroyed()
            await self._copied(self._workplace.collect(parts, taker))

    async def _copied(self, work: Coroutine[Any, Any, T]) -> T:
        """Copy in or out, under the lock, until ``destroy`` ends it; nothing is copied any more when this returns or raises."""
        copying = asyncio.ensure_future(work)
        self._copying = copying
        try:
            return await copying
        except asyncio.CancelledError:
            copying.cancel()
            await asyncio.wait({copying})
            self._refuse_destroyed()
            raise
        finally:
            self._copying = None

    async def exec(self, request: ExecRequest) -> Command:
        """Start one command; see ``Sandbox.exec``."""
        try:
            request.check()
            env = command_env(self._base_env, request.env)
            alone = self._parts.scope is None
            unset, mark = self._parts.image.env, launcher.new_end_mark()
            if alone:
                script = launcher.call(request, env, unset, self._marker, mark)
            else:
                script = launcher.resident_call(request, env, unset, mark)
        except ValueError as error:
            self._refuse_destroyed()
            return EndedCommand(CommandNotStartedError(str(error)))
        async with self._lock:
            self._refuse_destroyed()
            if alone:
                self._command = await self._start(request, script, mark)
            else:
                self._command = (await self._served()).run(request, script, mark)
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
                await self._command.noticed()
            if self._ahead is not None:
                await self._ahead.give_up()
            if not await self._passed_on():
                await self._remove()
            self._removed = True
            self._on_destroyed(self._name)

    async def _remove(self) -> None:
        whole, self._was_cut_off = self.has_run and not self._was_cut_off, True
        await self._workplace.remove(*self._containers)
        # A removal or a creation that the engine did not survive can leave what no container knows any more.
        if self._parts.image.volumes and not whole:
            await self._workplace.remove_unnamed()

    async def _passed_on(self) -> bool:
        """Leave the container to the next job of its scope, if it can be; tell whether it was."""
        resident, scope = self._resident, self._parts.scope
        if resident is None or scope is None:
            return False
        # What belongs to root cannot be removed from inside.
        if not self._trusted and await resident.clean():
            self._parts.residents.give(scope, resident)
            return True
        self._containers += filter(None, (resident.container,))
        await resident.let_go()
        return False

    async def _served(self) -> Resident:
        """Return the container that serves this sandbox, a new one if there is none that may go on."""
        if self._resident is not None and self._resident.takes_more():
            return self._resident
        if self._resident is not None:
            await self._resident.let_go()
            await self._engine.remove(self._resident.container)
        self._resident = Resident(self._engine, self._workplace)
        await self._resident.start(await self._next_container())
        return self._resident

    async def _start(self, request: ExecRequest, script: bytes, mark: str) -> ContainerCommand:
        starting = await self._next_container()
        try:
            await starting.running()
            # Looked for while the launcher waits: afterwards its number may be somebody else's.
            first = await self._first_process(starting.container)
        except BaseException:
            await starting.attachment.close()
            raise
        return ContainerCommand(
            engine=self._engine,
            container=starting.container,
            attachment=starting.attachment,
            request=request,
            feeding=asyncio.ensure_future(starting.attachment.write(script)),
            end_mark=mark,
            first=first,
            is_root=self._parts.nesting is Nesting.DIND,
        )

    async def _first_process(self, container: str) -> FirstProcess | None:
        if not self._engine.is_here:
            return None
        try:
            pid = int((await self._engine.inspect(container))["State"]["Pid"])
        except (SandboxError, KeyError, TypeError, ValueError):
            return None  # what has become of the command, its end will tell
        return FirstProcess.find(container, pid)

    async def _next_container(self) -> Starting:
        """Return a container whose launcher waits for a command, or will; remove the one before."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return ahead
        if self._command is not None:
            await self._command.noticed()
        while self._containers:
            await self._engine.remove(self._containers[-1])
            self._containers.pop()
        starting = await self._make()
        starting.begin(self._engine)
        return starting

    async def _make_ahead(self) -> None:
        self._ahead = await self._make()

    async def _make(self) -> Starting:
        image = self._parts.image
        words = (
            launcher.words(self._marker)
            if self._parts.scope is None
            else launcher.resident_words(image.volumes)
        )
        name = f"runner-{self._name}-{next(self._numbers)}"
        self._containers.append(name)
        container = await self._engine.create(name, self._config(words))
        return Starting(container, await self._engine.attach(container))

    def _config(self, words: list[str]) -> dict[str, Any]:
        parts = self._parts
        mounts = self._workplace.mounts
        if not parts.engine.is_podman and parts.nesting is Nesting.NONE:
            taken = [mount["Target"] for mount in mounts]
            mounts = [*mounts, *hardening.image_volumes(parts.image.volumes, taken, self._marks)]
        config = hardening.job(
            parts.image.id,
            words,
            settings=parts.settings,
            network=self._request.network,
            fuses=parts.fuses,
            mounts=mounts,
            marks=self._marks,
            extra_hosts=extra_hosts(self._request, parts.settings),
            podman=parts.engine.is_podman,
        )
        return nesting.changed(config, parts.nesting, parts.settings)

    def _refuse_destroyed(self) -> None:
        if self._destroyed:
            raise SandboxBrokenError(f"the sandbox {self._name} was destroyed")


def _environment(name: str, parts: Parts) -> dict[str, str]:
    """Return what every command has: the image's variables and ours, but where its programs are only the image knows."""
    own = base_env(
        name=name,
        owner=parts.owner_label,
        job_root=JOB_ROOT,
        home=hardening.HOME,
        tmp=hardening.TMP,
    )
    found = parts.image.env
    theirs = {name: value for name, value in found.items() if launcher.can_carry(name)}
    path = {"PATH": theirs["PATH"]} if theirs.get("PATH") else {}
    cache = {"RUNNER_CACHE_DIR": hardening.CACHE} if parts.cache else {}
    return {**theirs, **own, **path, **cache, **nesting.variables(parts.nesting)}
