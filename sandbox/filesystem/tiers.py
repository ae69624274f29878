"""The tiers as the provider knows them: what each prepares once, and how it makes a launcher.

A tier is asked for by trying it: a kernel feature that exists may still be forbidden here by a
container, a security module or a missing file system.
"""

from __future__ import annotations

import asyncio
import os
import stat
from functools import partial
from pathlib import Path
from typing import Protocol

from sandbox.base import Network, Tier, Wall
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.filesystem import bubblewrap
from sandbox.filesystem.landlock import kernel_abi, leave_abstract_sockets, scoped
from sandbox.filesystem.launch import BubblewrapLauncher, RestrictedLauncher
from sandbox.filesystem.restricted import Spawner, become, can_change_user
from sandbox.filesystem.sandbox import Launcher
from sandbox.filesystem.system_files import EtcCopy
from sandbox.filesystem.walls import NETWORK_ABI, LandlockWalls
from sandbox.filesystem.workspace import Workspace
from sandbox.limits import Limits

_REFRESH_PERIOD_S = 0.5
"""How old the copy of /etc may be for a new sandbox."""


class TierBackend(Protocol):
    """One tier on this host, prepared."""

    tier: Tier

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return what this tier does not hold for a sandbox with this network."""
        ...

    def can_switch_network_off(self) -> bool:
        """Tell whether a sandbox without a network can be made at all."""
        ...

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell whether a workspace may be used again once its tree is dead.

        Not where a command could pass an open folder of its own to another sandbox, over a socket that both reach:
        whoever holds a folder open may list it and be told of changes, whatever its mode is by then.
        """
        ...

    async def launcher(
        self, workspace: Workspace, lane: int, network: Network, limits: Limits
    ) -> Launcher:
        """Return what starts the commands of one sandbox, which has this lane to itself."""
        ...

    def retire(self, lane: int) -> None:
        """Note that there will be no more sandboxes of a lane."""
        ...

    def settle(self) -> None:
        """Begin what the first answer need not wait for. Called once, when the tier was chosen."""
        ...

    async def close(self) -> None:
        """Give back what is held."""
        ...


class BubblewrapTier:
    """Namespaces by bubblewrap. One variant of the options is fixed for the provider's life."""

    tier = Tier.BWRAP

    def __init__(
        self, etc: EtcCopy, *, changes_user: bool, disable_userns: bool, network_off: bool
    ) -> None:
        _check_user_change(changes_user=changes_user)
        bubblewrap.trusted_program(bubblewrap.BWRAP)
        self._etc = etc
        self._changes_user = changes_user
        self._abi = kernel_abi()
        self._spawners: dict[int, Spawner] = {}
        self._walls = bubblewrap.block(
            bubblewrap.wall_options(etc.path, disable_userns=disable_userns)
        )
        self._network_off = network_off
        self._refreshing = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None
        self._fresh_until = 0.0
        try:
            etc.begin()
        except OSError as error:
            raise SandboxBrokenError(f"/etc cannot be copied: {error}") from error

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return nothing: what it could not hold it refuses."""
        return ()

    def can_switch_network_off(self) -> bool:
        """Tell whether network namespaces work here."""
        return self._network_off

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell that it does if no abstract socket of another sandbox can be reached; others are out of sight."""
        return network is Network.OFF or bool(scoped(self._abi))

    async def launcher(
        self, workspace: Workspace, lane: int, network: Network, limits: Limits
    ) -> Launcher:
        """Return what starts the commands of one sandbox."""
        # Sandboxes that are made one right after the other share a look at /etc.
        now = asyncio.get_running_loop().time()
        if self._settling is not None and now >= self._fresh_until:
            self._fresh_until = now + _REFRESH_PERIOD_S
            await self._refresh()
        spawner = self._spawner(lane, workspace.job_uid)
        return BubblewrapLauncher(spawner, self._walls, workspace, network, limits)

    def settle(self) -> None:
        """Copy the rest of /etc: hundreds of links, which would delay the start of the runner."""
        self._settling = asyncio.get_running_loop().create_task(self._refresh())

    async def close(self) -> None:
        """Wait for the copy, so that nothing is written any more, and end the threads."""
        for lane in list(self._spawners):
            self.retire(lane)
        if self._settling is not None:
            await asyncio.wait({self._settling})

    def retire(self, lane: int) -> None:
        """End the thread of a lane; the kernel kills what bubblewrap it has left."""
        spawner = self._spawners.pop(lane, None)
        if spawner is not None:
            spawner.close()

    def _spawner(self, lane: int, uid: int | None) -> Spawner:
        """Return the thread that spawns for a lane. It lives as long as the lane: bubblewrap dies with it."""
        spawner = self._spawners.get(lane)
        if spawner is None:
            give_up = partial(_give_up, uid, self._abi)
            spawner = Spawner(changes_user=self._changes_user, for_good=give_up)
            self._spawners[lane] = spawner
        return spawner

    async def _refresh(self) -> None:
        async with self._refreshing:
            try:
                await asyncio.to_thread(self._etc.refresh)
            except OSError as error:
                raise SandboxBrokenError(f"/etc cannot be copied: {error}") from error


class LandlockTier:
    """Access rules of the kernel; processes stay visible and a tree has to be found to be killed."""

    tier = Tier.LANDLOCK

    def __init__(self, *, changes_user: bool) -> None:
        _check_user_change(changes_user=changes_user)
        self._walls = LandlockWalls()
        self._spawner = Spawner(changes_user=changes_user)

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return what no rule covers: /proc shows all, UDP is no TCP, and a fork storm can outrun a sweep."""
        network_walls = (Wall.NETWORK,) if network is Network.OFF else ()
        return (Wall.PROCESSES, Wall.TREE_KILL, *network_walls)

    def can_switch_network_off(self) -> bool:
        """Tell whether this kernel can deny TCP."""
        return self._walls.abi >= NETWORK_ABI

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell that it does not: no rule covers connecting to a socket by its path, nor an open folder's list."""
        return False

    async def launcher(
        self, workspace: Workspace, lane: int, network: Network, limits: Limits
    ) -> Launcher:
        """Return what starts the commands of one sandbox."""
        return RestrictedLauncher(workspace, self._walls, self._spawner, network, limits)

    def retire(self, lane: int) -> None:
        """Do nothing: the threads live for one command each."""

    def settle(self) -> None:
        """Begin nothing."""

    async def close(self) -> None:
        """Close the paths of the rules, and end the thread."""
        self._spawner.close()
        self._walls.close()


class PlainTier:
    """A folder and a process group."""

    tier = Tier.PLAIN

    def __init__(self, *, changes_user: bool) -> None:
        _check_user_change(changes_user=changes_user)
        self._spawner = Spawner(changes_user=changes_user)

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return everything but the change of the user."""
        held = {Wall.JOB_UID} if network is Network.OFF else {Wall.JOB_UID, Wall.NETWORK}
        return tuple(wall for wall in Wall if wall not in held)

    def can_switch_network_off(self) -> bool:
        """Tell that it cannot."""
        return False

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell that nothing is lost: there is no wall, and every command can open every workspace by its path."""
        return True

    async def launcher(
        self, workspace: Workspace, lane: int, network: Network, limits: Limits
    ) -> Launcher:
        """Return what starts the commands of one sandbox."""
        return RestrictedLauncher(workspace, None, self._spawner, network, limits)

    def retire(self, lane: int) -> None:
        """Do nothing: the threads live for one command each."""

    def settle(self) -> None:
        """Begin nothing."""

    async def close(self) -> None:
        """End the thread."""
        self._spawner.close()


def check_reachable(root: Path) -> None:
    """Check that the jobs' users can reach the workspaces. Called if they are not this process' user.

    Raises:
        SandboxUnavailableError: A folder above them lets nobody else through.
    """
    for folder in (root, *root.parents):
        if not os.stat(folder).st_mode & stat.S_IXOTH:  # noqa: PTH116
            raise SandboxUnavailableError(
                f"started by root, jobs run as other users, which cannot pass through {folder}:"
                " use a state directory below e.g. /var/lib"
            )


def _give_up(uid: int | None, abi: int) -> None:
    """Become a user and leave the reach of abstract sockets. Called on a thread that spawns bubblewrap.

    The thread may keep the job's user: no command is in a PID namespace from which it could be signalled.
    """
    if uid is not None:
        become(uid)
    leave_abstract_sockets(abi)


def _check_user_change(*, changes_user: bool) -> None:
    if changes_user and not can_change_user():
        raise SandboxUnavailableError(
            "changing the user of one thread is not known for this machine"
        )
