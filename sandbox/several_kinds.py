"""Gives each job the kind of sandbox that it asks for, by a provider of each kind; one that nobody asks for is never loaded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.base import Capabilities, Sandbox, SandboxProvider, SandboxRequest, Tier
from sandbox.errors import SandboxError, SandboxUnavailableError
from sandbox.filesystem.root_check import check_root

AUTO = "auto"
FILESYSTEM = "filesystem"
SHARED = ".shared"
"""The folder beside the workspaces that belongs to no sandbox."""
USED = "used-"
"""Begins the name of a file in it that says which kinds this start has used: a later one looks for leftovers of no other."""

logger = logging.getLogger(__name__)


class SeveralKinds:
    """A provider made of others. One per process; see ``SandboxProvider``."""

    def __init__(
        self,
        kind: str,
        openers: Mapping[str, Callable[[], SandboxProvider]],
        root: Path,
        engine_socket: str = "",
    ) -> None:
        """Remember the kinds; none is opened before it is needed.

        Args:
            kind: What a job gets that does not ask for one.
            openers: Makes the provider of each kind, by its name.
            root: Folder of the workspaces, where this provider notes what it has used.
            engine_socket: Path of the socket of a container engine, which no job may reach; empty for none.
        """
        self.kind = kind
        self._openers = openers
        self._root = root
        self._engine_socket = engine_socket
        self._open: dict[str, SandboxProvider] = {}
        self._noted: set[str] = set()
        self._reaped = {kind}
        """Kinds whose leftovers are gone; those of the first are looked for by whoever calls ``reap``."""
        self._reaping = asyncio.Lock()
        self._found: set[str] = set()
        """Kinds that an earlier process has used."""
        self._unreached: set[str] = set()
        """Kinds whose leftovers could not be looked for."""

    async def probe(self) -> Capabilities:
        """Try the kind that most jobs get; the others are tried by their first job."""
        if self.kind != FILESYSTEM:
            self._note(self.kind)
        found = await self._provider(self.kind).probe()
        self._note(self.kind)
        return found

    async def create(self, request: SandboxRequest) -> Sandbox:
        """Make an empty sandbox of the kind that is asked for; see ``SandboxProvider.create``."""
        kind = self.kind if request.kind == AUTO else request.kind
        provider = self._provider(kind)
        if kind not in self._reaped:
            async with self._reaping:
                if kind not in self._reaped:
                    await provider.reap()
                    self._reaped.add(kind)
        if kind == FILESYSTEM != self.kind:
            self._keep_from_engine(await provider.probe())
        self._note(kind)
        return await provider.create(request)

    async def reap(self) -> list[str]:
        """Remove what an earlier process left in any kind that it has used; see ``SandboxProvider.reap``.

        Raises:
            SandboxError: Leftovers of the first kind cannot be looked for. Those of another are left for a later start.
        """
        names = set(await self._provider(self.kind).reap())
        self._found = self._used_before()
        for kind in self._found - {self.kind}:
            try:
                names.update(await self._provider(kind).reap())
            except SandboxError as error:
                fields = {"action": "leftovers_kept", "kind": kind, "error": str(error)}
                logger.warning("Leftovers cannot be looked for now", extra=fields)
                self._unreached.add(kind)
            else:
                self._reaped.add(kind)
        return sorted(names)

    async def close(self) -> None:
        """Destroy every sandbox that is left, of all kinds; see ``SandboxProvider.close``."""
        for kind in sorted(self._open, key=lambda each: each == FILESYSTEM):  # it removes the root
            await self._open[kind].close()
        if self._noted or self._found:  # else the folder may be somebody's
            import shutil  # noqa: PLC0415 - with four ways to compress, which an agent-runner that rests does without

            shutil.rmtree(self._root / SHARED, ignore_errors=True)
            with contextlib.suppress(OSError):
                self._root.rmdir()
        self._noted.clear()
        self._found.clear()
        for kind in self._unreached:
            self._note(kind)

    def _provider(self, kind: str) -> SandboxProvider:
        if kind not in self._open:
            opener = self._openers.get(kind)
            if opener is None:
                known = ", ".join(self._openers)
                raise SandboxUnavailableError(f"no sandbox of kind {kind!r} here: {known}")
            self._open[kind] = opener()
        return self._open[kind]

    def _keep_from_engine(self, found: Capabilities) -> None:
        """Refuse walls that leave the socket of the engine in reach, where its user is ours: it makes a job root of the host."""
        in_reach = found.tier < Tier.BWRAP and os.geteuid() != 0
        if in_reach and self._engine_socket and os.access(self._engine_socket, os.W_OK):
            raise SandboxUnavailableError(
                f"the {found.tier.label} tier would leave {self._engine_socket} in reach of the job"
            )

    def _make_folders(self) -> None:
        # Where workspaces are on this host, their provider has made the folders already.
        from sandbox.filesystem.workspace import open_root  # noqa: PLC0415

        check_root(self._root)
        open_root(self._root, passable=os.geteuid() == 0)
        (self._root / SHARED).mkdir(mode=0o711, exist_ok=True)

    def _mark(self, kind: str) -> Path:
        return self._root / SHARED / (USED + kind)

    def _used_before(self) -> set[str]:
        return {kind for kind in self._openers if self._mark(kind).exists()}

    def _note(self, kind: str) -> None:
        """Leave a note on the disk before the first sandbox of a kind, for whoever comes after a crash."""
        if kind in self._noted:
            return
        mark = self._mark(kind)
        try:
            if not mark.parent.is_dir():
                self._make_folders()
            mark.touch(mode=0o600)
            self._noted.add(kind)
        except (OSError, SandboxError) as error:
            logger.warning(
                "Which sandboxes are used cannot be noted",
                extra={"action": "kind_not_noted", "kind": kind, "error": str(error)},
            )
