"""What a sandbox has in the engine whether or not a command runs: the volume of ``/job``, and a way in and out for files."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.collection import Taker
from sandbox.container import hardening
from sandbox.container.collecting import ContainerCollection
from sandbox.container.engine import Engine, label_filter
from sandbox.container.failure import Operation
from sandbox.container.pack import Packer, Packing
from sandbox.container.unpack import (
    ROOM_FOR_HEADERS,
    check_file,
    check_folder,
    single_file,
)
from sandbox.container.workspace_image import workspace_archive
from sandbox.env import JOB_ROOT
from sandbox.errors import SandboxBrokenError, TransferRefusedError
from sandbox.job_path import path_parts

_FACTS = "X-Docker-Container-Path-Stat"
_VOLUME_TRIES = 20
_VOLUME_WAIT_S = 0.1
"""The engine lets go of a volume a moment after its last container is gone."""


class Workplace:
    """A volume, and a container that never runs, of an image without a single program, which holds it.

    Files go in and out by that container: a link of the job that points outside points at nothing there. Used by one
    sandbox at a time.
    """

    def __init__(
        self, engine: Engine, name: str, marks: Mapping[str, str], cache: str = ""
    ) -> None:
        """Remember the names; nothing is made before ``make``.

        Args:
            engine: Where.
            name: Of the sandbox that is first to use it.
            marks: Labels of what is made.
            cache: Name of the volume at ``/cache``; empty for none.
        """
        self._engine = engine
        self._marks = marks
        self._holder_image = ""
        self._volume = f"runner-{name}"
        # A name, so that ``remove`` finds the container even if its id never comes.
        self._holder = f"runner-{name}-files"
        mounts = [hardening.workspace_mount(self._volume, marks)]
        if cache:
            mounts.append(hardening.cache_mount(cache))
        self._mounts = mounts

    @property
    def mounts(self) -> list[dict[str, Any]]:
        """Return what a container of a command mounts; nothing of its image is copied there."""
        return [hardening.without_copy(mount) for mount in self._mounts]

    async def make(self, holder_image: str) -> None:
        """Make both. Called once; after a failure ``remove`` is."""
        self._holder_image = holder_image
        config = hardening.holder(holder_image, self._mounts, self._marks)
        if not self._engine.is_podman:
            await self._engine.create(self._holder, config)
            return
        # Podman overlooks the labels of a mount, and fills a volume when a container starts, which this one never does.
        for mount in self._mounts:
            await self._engine.create_volume(mount["Source"], mount["VolumeOptions"]["Labels"])
        await self._engine.create(self._holder, config)
        for target in (mount["Target"] for mount in self._mounts):
            folders = workspace_archive(target.lstrip("/"))
            await self._engine.put_archive(self._holder, target, folders, target)

    async def put(self, packer: Packer, source: Path, parts: tuple[str, ...]) -> None:
        """Copy a folder of this host below the job root."""
        await self._restored()
        packing = Packing(packer.pieces(source, parts))
        try:
            await self._engine.put_archive(
                self._holder, JOB_ROOT, packing.stream(), "/".join(parts)
            )
        finally:
            await asyncio.to_thread(packing.close)

    async def read(self, path: str, limit_bytes: int) -> bytes:
        """Return the content of a file below the job root; see ``Sandbox.download``."""
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

    async def collect(self, parts: tuple[str, ...], taker: Taker) -> None:
        """Offer the files of a folder below the job root; see ``Collecting.collect``."""
        await self._restored()
        await ContainerCollection(self._engine, self._holder, taker).run(parts)

    async def remove(self, *containers: str) -> None:
        """Remove both, and the given containers, which use the volume.

        Raises:
            SandboxBrokenError: The engine does not, or cannot.
        """
        await asyncio.gather(*map(self._engine.remove, (*containers, self._holder)))
        for _ in range(_VOLUME_TRIES):
            if await self._engine.remove_volume(self._volume):
                return
            await asyncio.sleep(_VOLUME_WAIT_S)
        raise SandboxBrokenError(f"the volume {self._volume} cannot be removed: it is in use")

    async def remove_unnamed(self) -> None:
        """Remove volumes that an image asked for and whose container never came to be: the engine died in between."""
        owner = hardening.OWNER_LABEL
        mine = label_filter(f"{owner}={self._marks[owner]}")
        found = (await self._engine.get_json("/volumes", filters=mine))["Volumes"] or ()
        for each in found:
            name = each["Labels"].get(hardening.SANDBOX_LABEL)
            if name == self._marks[hardening.SANDBOX_LABEL]:
                await self._engine.remove_volume(each["Name"])

    async def _facts(self, parts: tuple[str, ...]) -> str:
        path = "/".join((JOB_ROOT, *parts))
        headers = await self._engine.path_facts(self._holder, path)
        if headers is None and await self._restored():
            headers = await self._engine.path_facts(self._holder, path)
        if headers is None:
            raise FileNotFoundError("/".join(parts))
        return str(headers.get(_FACTS, ""))

    async def _restored(self) -> bool:
        """Make the holder anew if somebody has removed it, as who prunes containers that do not run; tell whether it was needed."""
        if await self._engine.has_container(self._holder):
            return False
        await self.make(self._holder_image)
        return True
