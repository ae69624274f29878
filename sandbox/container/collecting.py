"""Offers the files of a folder of a container, out of the tar archives that the engine makes of it.

The engine follows no link inside an archive; what leads to the folder is looked at name by name, as for a download.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import tarfile
from collections.abc import AsyncIterator
from typing import Any

from sandbox.collection import Taker
from sandbox.container.engine import Engine
from sandbox.container.failure import Operation
from sandbox.container.unpack import Kind, kind_of
from sandbox.env import JOB_ROOT
from sandbox.errors import SandboxBrokenError, TransferRefusedError

FACTS = "X-Docker-Container-Path-Stat"
MAX_HARD_LINKS = 10_000
"""Second names of a file, each of which is fetched by itself."""
_PIECE_BYTES = 1 << 20
_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})


class ContainerCollection:
    """One collection. ``run`` once."""

    def __init__(self, engine: Engine, holder: str, taker: Taker) -> None:
        self._engine = engine
        self._holder = holder
        self._taker = taker
        self._second_names: list[str] = []

    async def run(self, parts: tuple[str, ...]) -> None:
        """Offer what the folder below the job root holds; see ``Collecting.collect``."""
        for depth in range(1, len(parts) + 1):
            kind = await self._kind(parts[:depth])
            if kind is None:
                return
            if kind is not Kind.FOLDER:
                raise TransferRefusedError(f"{'/'.join(parts)!r} crosses a link or is no folder")
        for root in self._taker.roots():
            await self._offer(parts, tuple(root.split("/")) if root else ())
        # As the first name of a file, because asked for alone.
        for name in self._second_names[:MAX_HARD_LINKS]:
            await self._offer(parts, tuple(name.split("/")))
        for name in self._second_names[MAX_HARD_LINKS:]:
            self._taker.refuse(name, "is one of too many hard links")

    async def _offer(self, parts: tuple[str, ...], root: tuple[str, ...]) -> None:
        name = "/".join(root)
        for depth in range(1, len(root) + 1):
            kind = await self._kind((*parts, *root[:depth]))
            if kind is None:
                return
            last = depth == len(root)
            if kind is not Kind.FOLDER and not (last and kind is Kind.FILE):
                if self._taker.wants(name):
                    why = "is a link" if kind is Kind.LINK else "is no regular file"
                    self._taker.refuse("/".join(root[:depth]), why)
                return
        path = "/".join((JOB_ROOT, *parts, *root))
        async with self._engine.stream(
            Operation.COPY_OUT,
            "GET",
            f"/containers/{self._holder}/archive",
            name,
            params={"path": path},
        ) as answer:
            archive = _Archive(answer.aiter_raw())
            reading = asyncio.ensure_future(asyncio.to_thread(self._read, archive, root))
            try:
                await asyncio.shield(reading)
            finally:
                # The thread uses the taker, and this answer.
                archive.stop()
                await asyncio.wait({reading})
                reading.exception()  # seen here, if its waiter was cancelled

    async def _kind(self, parts: tuple[str, ...]) -> Kind | None:
        path = "/".join((JOB_ROOT, *parts))
        headers = await self._engine.path_facts(self._holder, path)
        return None if headers is None else kind_of(str(headers.get(FACTS, "")), path)

    def _read(self, archive: Any, root: tuple[str, ...]) -> None:
        """Offer what an archive holds; runs on a thread."""
        try:
            with tarfile.open(
                fileobj=archive, mode="r|", bufsize=_PIECE_BYTES, errors="surrogateescape"
            ) as tar:
                while (member := tar.next()) is not None:
                    # Else it remembers all of them.
                    tar.members = []  # type: ignore[attr-defined]  # as the standard library knows it
                    inner = member.name.split("/")[1:]
                    self._offer_member(tar, member, "/".join((*root, *inner)))
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise TransferRefusedError(f"the engine's archive is damaged: {error}") from error

    def _offer_member(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        if member.isdir() or not self._taker.wants(name):
            return
        if member.type in _FILES:
            file = tar.extractfile(member)
            assert file is not None  # noqa: S101 - it is a file
            self._taker.take(name, member.mode & 0o777, member.size, file.read)
        elif member.islnk():
            self._second_names.append(name)
        elif member.issym():
            self._taker.link(name, member.linkname)
        else:
            self._taker.refuse(name, "is no regular file")


class _Archive:
    """The content of an answer as a file that a thread reads."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._loop = asyncio.get_running_loop()
        self._held = bytearray()
        self._stopped = False
        self._waiting: concurrent.futures.Future[bytes] | None = None

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer only at the end; called on a thread."""
        while len(self._held) < size:
            if self._stopped:
                raise SandboxBrokenError("the collection was stopped")
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                piece = self._waiting.result()
            except concurrent.futures.CancelledError:
                continue
            if not piece:
                break
            self._held += piece
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def stop(self) -> None:
        """Let the thread end; called on the event loop, at any moment."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _next(self) -> bytes:
        """Return the next bytes, enough to be worth the way between thread and loop."""
        gathered = bytearray()
        while len(gathered) < _PIECE_BYTES and not self._stopped:
            piece = await anext(self._pieces, b"")
            if not piece:
                break
            gathered += piece
        return bytes(gathered)
