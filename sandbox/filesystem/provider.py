"""The maker of filesystem sandboxes: it finds the strongest tier that really works here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from sandbox.base import (
    Capabilities,
    ExecRequest,
    Network,
    SandboxRequest,
    Tier,
)
from sandbox.bounds.control_groups import ControlGroups
from sandbox.env import OWNER_MARKER
from sandbox.errors import SandboxBrokenError, SandboxError, SandboxUnavailableError
from sandbox.filesystem.agreement import KIND, Agreement, Agreements, agree
from sandbox.filesystem.lanes import JOB_UIDS, Lane, Lanes
from sandbox.filesystem.removal_queue import RemovalQueue, discard_workspace
from sandbox.filesystem.root_check import check_root
from sandbox.filesystem.sandbox import FilesystemSandbox
from sandbox.filesystem.settled import in_thread
from sandbox.filesystem.system_files import EtcCopy
from sandbox.filesystem.tiers import (
    BubblewrapTier,
    LandlockTier,
    PlainTier,
    TierBackend,
    check_reachable,
)
from sandbox.filesystem.warm_slots import WarmSlot, WarmSlots
from sandbox.filesystem.workspace import SPARE_PREFIX, Workspace, open_root
from sandbox.process import become_subreaper
from sandbox.process_tree import has_processes, kill_marked, users_of_others

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
_SHARED = ".shared"
_PROBE_S = 20.0

logger = logging.getLogger(__name__)


class FilesystemProvider:
    """Makes sandboxes below one folder of this host. One per process; see ``SandboxProvider``."""

    kind = KIND

    def __init__(  # noqa: PLR0913  # what the operator decides
        self,
        root: Path,
        *,
        owner_label: str,
        tier: Tier | None = None,
        allow_plain: bool = False,
        job_uids: range = JOB_UIDS,
        groups: ControlGroups | None = None,
        warm_slots: int = 0,
    ) -> None:
        """Remember where and how; nothing is touched before ``probe``.

        Args:
            root: Folder of all workspaces; made if missing. Root's must be passable for the job's user.
            owner_label: Names this agent-runner in its processes, the same after a restart.
            tier: Use exactly this one, or fail. None takes the strongest that works.
            allow_plain: The operator's consent to no walls, for jobs that did not give theirs.
            job_uids: Users and groups of commands when this process is root's, one for each sandbox at a time.
            groups: What control groups are made by; None looks at the host.
            warm_slots: How many sandboxes are built ahead, in the tier that gains by it.
        """
        self._root = root.absolute()
        self._owner_label = owner_label
        self._forced = tier
        self._allow_plain = allow_plain
        self._changes_user = os.geteuid() == 0
        self._backend: TierBackend | None = None
        self._capabilities: Capabilities | None = None
        self._agreements: Agreements | None = None
        self._prepared = False
        self._warned = False
        self._live: dict[str, FilesystemSandbox] = {}
        self._lanes = Lanes(self._root, job_uids if self._changes_user else None)
        self._removals = RemovalQueue()
        self._groups = groups or ControlGroups(owner_label)
        self._probing = asyncio.Lock()
        self._warm = WarmSlots(
            warm_slots,
            lanes=self._lanes,
            groups=self._groups,
            owner_label=owner_label,
            release=self._release,
        )

    @property
    def parked_pids(self) -> Sequence[int]:
        """Return the processes below which the sandboxes are that were built ahead and wait."""
        return self._warm.pids

    async def probe(self) -> Capabilities:
        """Find the strongest tier by running a command in it; the answer is kept.

        Raises:
            SandboxUnavailableError: The tier that was forced does not work here.
        """
        async with self._probing:
            if self._capabilities is None:
                await asyncio.to_thread(self._prepare)
                self._capabilities = await self._find_tier()
            return self._capabilities

    async def create(self, request: SandboxRequest) -> FilesystemSandbox:
        """Make an empty sandbox; see ``SandboxProvider.create``."""
        capabilities = self._capabilities or await self.probe()
        backend = self._backend
        if backend is None:
            raise SandboxBrokenError("the provider was closed")
        if _NAME.fullmatch(request.name) is None:
            raise SandboxBrokenError(f"{request.name!r} cannot be the name of a sandbox")
        if self._agreements is None:
            self._agreements = Agreements(
                backend,
                capabilities,
                self._groups,
                allow_plain=self._allow_plain,
                changes_user=self._changes_user,
            )
        agreement = self._agreements.of(request)
        if capabilities.tier is Tier.PLAIN and not self._warned:
            self._warned = True  # who runs jobs says so of each, at its end
            logger.warning(
                "Jobs run without walls: they can read and change whatever their user can",
                extra={"action": "no_walls", "sandbox": request.name},
            )
        return await self._make(backend, request, agreement)

    async def reap(self) -> list[str]:
        """Remove processes and workspaces of an earlier process with this owner label."""
        await asyncio.to_thread(check_root, self._root)
        killed = await kill_marked(OWNER_MARKER, self._owner_label, self._is_known)
        names = {name for name in killed if not name.startswith(SPARE_PREFIX)}
        names.update(await asyncio.to_thread(self._groups.reap))
        for name in await asyncio.to_thread(self._leftovers):
            removed = await in_thread(partial(discard_workspace, self._workspace(name)))
            if removed and not name.startswith(SPARE_PREFIX):
                names.add(name)
        if self._changes_user:
            # What hides from the search, or belongs to another agent-runner, still shows its user.
            self._lanes.avoid(await asyncio.to_thread(users_of_others))
        return sorted(names)

    async def close(self) -> None:
        """Destroy every sandbox that is left; see ``SandboxProvider.close``."""
        for name, sandbox in list(self._live.items()):
            try:
                await sandbox.destroy()
            except SandboxBrokenError as error:
                logger.warning(
                    "A sandbox could not be removed",
                    extra={"action": "sandbox_not_removed", "sandbox": name, "error": str(error)},
                )
        await self._warm.close()
        if self._backend is not None:
            await self._backend.close()
            self._backend = None
            self._capabilities = self._agreements = None
        await in_thread(self._removals.close)
        self._lanes.close()
        await in_thread(self._groups.close)
        if self._prepared:
            await asyncio.to_thread(self._remove_root)

    def _remove_root(self) -> None:
        """Leave nothing behind: the root is this provider's alone, and it is made anew when needed."""
        if self._root.is_dir():
            discard_workspace(self._workspace(_SHARED))
            with contextlib.suppress(
                OSError
            ):  # a workspace that could not be removed is still in it
                self._root.rmdir()

    def _prepare(self) -> None:
        become_subreaper()
        check_root(self._root)
        try:
            open_root(self._root, passable=self._changes_user)
            self._prepared = True
        except OSError as error:
            raise SandboxUnavailableError(
                f"{self._root} cannot be used: {error.strerror}"
            ) from error

    async def _find_tier(self) -> Capabilities:
        reasons: list[str] = []
        if self._forced is not None:
            reasons.append(f"the tier is set to {self._forced.label}")
        for tier, open_tier in self._candidates():
            if self._forced is not None and tier is not self._forced:
                continue
            backend: TierBackend | None = None
            try:
                if self._changes_user:
                    check_reachable(self._root)
                backend = await asyncio.to_thread(open_tier)
                off = Network.OFF if backend.can_switch_network_off() else Network.ON
                await self._try(backend, off)
            except SandboxError as error:
                if backend is not None:
                    await backend.close()
                reason = f"{tier.label}: {error}"
                if reason not in reasons:
                    reasons.append(reason)
                continue
            await self._try_link(backend)
            self._backend = backend
            backend.settle()
            self._warm.begin(backend)
            return Capabilities(
                kind=KIND,
                tier=tier,
                walls_not_held=backend.walls_not_held(off),
                reason="; ".join(reasons),
            )
        raise SandboxUnavailableError("; ".join(reasons))

    def _candidates(self) -> Iterator[tuple[Tier, Callable[[], TierBackend]]]:
        etc = EtcCopy(self._root / _SHARED / "etc")
        for network_off in (True, False):
            for disable_userns in (True, False):

                def open_bubblewrap(
                    *, off: bool = network_off, strict: bool = disable_userns
                ) -> TierBackend:
                    return BubblewrapTier(
                        self._root,
                        etc,
                        changes_user=self._changes_user,
                        disable_userns=strict,
                        network_off=off,
                    )

                yield Tier.BWRAP, open_bubblewrap
        yield Tier.LANDLOCK, lambda: LandlockTier(self._root, changes_user=self._changes_user)
        yield Tier.PLAIN, lambda: PlainTier(self._root, changes_user=self._changes_user)

    async def _try_link(self, backend: TierBackend) -> None:
        """Give jobs a network namespace of their own also with the network on, if that works here."""
        backend.link = backend.linkable()
        if backend.link is not None:
            try:
                await self._try(backend, Network.ON)
            except SandboxError as error:
                backend.link = None
                logger.warning(
                    "Jobs with a network share that of the host: %s",
                    error,
                    extra={"action": "network_not_linked"},
                )

    async def _try(self, backend: TierBackend, network: Network) -> None:
        """Run a command in a tier."""
        name = f"probe-{os.getpid()}"
        await in_thread(partial(discard_workspace, self._workspace(name)))
        first = SandboxRequest(name=name, network=network)
        agreement = agree(backend, self._groups, first, changes_user=self._changes_user)
        sandbox = await self._make(backend, first, agreement)
        try:
            request = ExecRequest(
                argv=("/bin/sh", "-c", "echo works"),
                env={},
                cwd=sandbox.inside("/job/src"),
                timeout_s=_PROBE_S,
                grace_s=0,
            )
            command = await sandbox.exec(request)
            output = b"".join([piece async for piece in command.stream()])
            result = await command.wait()
        finally:
            await sandbox.destroy()
        if result.exit_code != 0 or output != b"works\n":
            said = output.decode("utf-8", "replace").strip()
            raise SandboxBrokenError(f"a first command ended with {result.exit_code}: {said}")

    async def _make(
        self, backend: TierBackend, request: SandboxRequest, agreement: Agreement
    ) -> FilesystemSandbox:
        name, terms = request.name, agreement.terms
        slot = self._warm.take(request)
        lane = self._lanes.take() if slot is None else slot.lane
        try:
            place = lane.pool.workspace(name)
            launcher = await backend.launcher(place, terms)
            # Few calls, here: handing them to a thread and back costs several times as much.
            if slot is None:
                private = backend.keeps_folders_private(request.network)
                workspace = lane.pool.obtain(name, returnable=private)
            else:
                workspace = slot.assign(name, terms.bounds.process_limits())
        except BaseException as error:
            self._undo(lane, slot)
            if isinstance(error, OSError):
                raise SandboxBrokenError(f"no workspace for {name}: {error}") from error
            raise
        sandbox = FilesystemSandbox(
            owner_label=self._owner_label,
            info=agreement.info,
            workspace=workspace,
            lane=lane,
            removals=self._removals,
            launcher=launcher,
            parked=None if slot is None else slot.parked,
            protects=request.protect,
            on_destroyed=self._forget,
        )
        self._live[name] = sandbox
        self._warm.rest()
        return sandbox

    def _undo(self, lane: Lane, slot: WarmSlot | None) -> None:
        """Give back what a sandbox was to be made of that was not made."""
        if slot is None:
            self._lanes.give_back(lane)
        else:
            self._warm.put_back(slot)

    def _forget(self, sandbox: FilesystemSandbox) -> None:
        """Let the next sandbox have the lane of one that is gone, if nothing of it can live."""
        self._live.pop(sandbox.name, None)
        self._release(sandbox.lane, sandbox.verified_dead)
        self._warm.rest()

    def _release(self, lane: Lane, verified_dead: bool) -> None:
        if verified_dead or (lane.uid is not None and not has_processes(lane.uid)):
            self._lanes.give_back(lane)
            return
        self._lanes.retire(lane)

    def _is_known(self, name: str) -> bool:
        """Tell whether a sandbox of this name is alive, or was built ahead."""
        return name in self._live or name in self._warm.names()

    def _workspace(self, name: str) -> Workspace:
        """Return the folder of this name, for removing it."""
        return Workspace(self._root / name, None)

    def _leftovers(self) -> list[str]:
        if not self._root.is_dir():
            return []
        spared = {_SHARED, *self._lanes.spares(), *self._removals.names()}
        return [
            entry.name
            for entry in os.scandir(self._root)
            if entry.name not in spared and not self._is_known(entry.name)
        ]
