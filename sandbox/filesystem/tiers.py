"""The tiers as the provider knows them: what each prepares once, and how it makes a launcher.

A tier is asked for by trying it: a kernel feature that exists may still be forbidden here by a
container, a security module or a missing file system.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from sandbox.base import Network, Tier, Wall
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.filesystem import bubblewrap, rights
from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.landlock import TRUNCATE_ABI, AbstractSocketScope, kernel_abi, scoped
from sandbox.filesystem.launch import BubblewrapLauncher, RestrictedLauncher
from sandbox.filesystem.sandbox import Launcher
from sandbox.filesystem.seccomp import INET, INET6, NETLINK, UNIX, SyscallPolicy, program
from sandbox.filesystem.spawner import Spawner
from sandbox.filesystem.system_files import EtcCopy
from sandbox.filesystem.terms import Terms
from sandbox.filesystem.trampoline import Trampoline
from sandbox.filesystem.walls import LandlockWalls
from sandbox.filesystem.workspace import Workspace
from sandbox.network.pasta import PASTA, host_problem

IN_NAMESPACES = SyscallPolicy(families=frozenset({UNIX, INET, INET6, NETLINK}), own_namespaces=True)
_OF_THE_HOST = frozenset({INET, INET6, NETLINK})
"""No unix sockets: no rule of Landlock before ABI 9 keeps those from being reached that have a path, such as the bus of the user."""
_WITH_NETWORK = SyscallPolicy(families=_OF_THE_HOST, own_namespaces=False)
_WITHOUT_NETWORK = SyscallPolicy(families=frozenset(), own_namespaces=False)
_ALL_BUT_THE_USER = tuple(wall for wall in Wall if wall is not Wall.JOB_UID)
_REFRESH_PERIOD_S = 0.5
"""How old the copy of /etc may be for a new sandbox."""


class TierBackend(Protocol):
    """One tier on this host, prepared."""

    tier: Tier
    link: str | None
    """The pasta that connects a network namespace of each job's own, for ``Network.ON``; None: the host's network is used."""

    def linkable(self) -> str | None:
        """Return what ``link`` may be on this host, untried."""
        ...

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return what this tier does not hold for a sandbox with this network."""
        ...

    def can_switch_network_off(self) -> bool:
        """Tell whether a sandbox without a network can be made at all."""
        ...

    def can_filter_hosts(self) -> bool:
        """Tell whether a sandbox that reaches a list of hosts can be made."""
        ...

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell whether a workspace may be used again once its tree is dead.

        Not where a command could pass an open folder of its own to another sandbox, over a socket that both reach:
        whoever holds a folder open may list it and be told of changes, whatever its mode is by then.
        """
        ...

    async def launcher(self, workspace: Workspace, terms: Terms) -> Launcher:
        """Return what starts the commands of one sandbox."""
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
        self,
        root: Path,
        etc: EtcCopy,
        *,
        changes_user: bool,
        disable_userns: bool,
        network_off: bool,
    ) -> None:
        bubblewrap.trusted_program(bubblewrap.BWRAP)
        self._etc = etc
        self._abi = kernel_abi()
        self._spawner = Spawner(Trampoline(root))
        self._scope = AbstractSocketScope(self._abi)
        shared = _shared_calls(self._spawner.trampoline, changes_user=changes_user)
        self._beginnings = Beginnings(partial(BubblewrapLauncher.beginning, shared, self._scope))
        self._network_off = network_off
        self.link: str | None = None
        self._refreshing = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None
        self._fresh_until = 0.0
        try:
            etc.begin()
        except OSError as error:
            raise SandboxBrokenError(f"/etc cannot be copied: {error}") from error
        self._walls = bubblewrap.block(
            bubblewrap.wall_options(etc.path, disable_userns=disable_userns)
        )

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return what the network of the host is: its loopback is reached with it. What else it could not hold it refuses."""
        return (Wall.NETWORK,) if network is Network.ON and self.link is None else ()

    def linkable(self) -> str | None:
        """Return the pasta of this host, if it may work: nobody but root can have put it there, and names can be looked up."""
        if not self._network_off or host_problem(PASTA):
            return None
        try:
            return bubblewrap.trusted_program(PASTA)
        except SandboxUnavailableError:
            return None

    def can_switch_network_off(self) -> bool:
        """Tell whether network namespaces work here."""
        return self._network_off

    def can_filter_hosts(self) -> bool:
        """Tell the same: the proxy is all that can be reached from a namespace."""
        return self._network_off

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell that it does if no abstract socket of another sandbox can be reached; others are out of sight."""
        own_network = network is not Network.ON or self.link is not None
        return own_network or bool(scoped(self._abi))

    async def launcher(self, workspace: Workspace, terms: Terms) -> BubblewrapLauncher:
        """Return what starts the commands of one sandbox."""
        # Sandboxes that are made one right after the other share a look at /etc.
        now = asyncio.get_running_loop().time()
        if self._settling is not None and now >= self._fresh_until:
            self._fresh_until = now + _REFRESH_PERIOD_S
            await self._refresh()
        return BubblewrapLauncher(
            spawner=self._spawner,
            calls=self._beginnings.of(workspace.job_uid),
            scope=self._scope,
            walls=self._walls,
            filter_program=program(self._spawner.machine, IN_NAMESPACES),
            workspace=workspace,
            terms=terms,
        )

    def settle(self) -> None:
        """Copy the rest of /etc: hundreds of links, which would delay the start of the runner."""
        self._settling = asyncio.get_running_loop().create_task(self._refresh())

    async def close(self) -> None:
        """Wait for the copy, so that nothing is written any more, and give back what is held."""
        if self._settling is not None:
            await asyncio.wait({self._settling})
        await asyncio.to_thread(self._etc.remove)
        self._scope.close()
        self._spawner.close()

    async def _refresh(self) -> None:
        async with self._refreshing:
            try:
                await asyncio.to_thread(self._etc.refresh)
            except OSError as error:
                raise SandboxBrokenError(f"/etc cannot be copied: {error}") from error


class LandlockTier:
    """Access rules of the kernel; processes stay visible and a tree has to be found to be killed."""

    tier = Tier.LANDLOCK
    link: str | None = None

    def linkable(self) -> str | None:
        """Return nothing: there are no namespaces."""
        return None

    def __init__(self, root: Path, *, changes_user: bool) -> None:
        self._walls = LandlockWalls()
        self._changes_user = changes_user
        self._spawner = Spawner(Trampoline(root))
        self._beginnings = _restricted(self._spawner.trampoline, changes_user=changes_user)

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return what no rule covers: /proc shows all, a fork storm can outrun a sweep, nothing below what is allowed is excepted."""
        found = [Wall.PROCESSES, Wall.TREE_KILL, Wall.PROTECT]
        if network is Network.ON:
            found.append(Wall.NETWORK)
        if not self._changes_user:  # root's jobs own nothing of the host
            found.append(Wall.METADATA)
        if self._walls.abi < TRUNCATE_ABI:
            found.append(Wall.FS_WRITE)
        return tuple(wall for wall in Wall if wall in found)

    def can_switch_network_off(self) -> bool:
        """Tell that it can: the filter of system calls makes no socket then."""
        return True

    def can_filter_hosts(self) -> bool:
        """Tell that it cannot: rules know ports, not hosts."""
        return False

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell that it does: without unix sockets no open folder is handed to another sandbox."""
        return True

    async def launcher(self, workspace: Workspace, terms: Terms) -> Launcher:
        """Return what starts the commands of one sandbox."""
        policy = _WITH_NETWORK if terms.network is Network.ON else _WITHOUT_NETWORK
        return RestrictedLauncher(
            spawner=self._spawner,
            calls=self._beginnings.of(workspace.job_uid),
            workspace=workspace,
            walls=self._walls,
            filter_program=program(self._spawner.machine, policy),
            terms=terms,
        )

    def settle(self) -> None:
        """Begin nothing."""

    async def close(self) -> None:
        """Close the paths of the rules."""
        self._spawner.close()
        self._walls.close()


class PlainTier:
    """A folder and a process group."""

    tier = Tier.PLAIN
    link: str | None = None

    def linkable(self) -> str | None:
        """Return nothing: there are no namespaces."""
        return None

    def __init__(self, root: Path, *, changes_user: bool) -> None:
        self._spawner = Spawner(Trampoline(root))
        self._beginnings = _restricted(self._spawner.trampoline, changes_user=changes_user)

    def walls_not_held(self, network: Network) -> tuple[Wall, ...]:
        """Return everything but the change of the user."""
        return _ALL_BUT_THE_USER

    def can_switch_network_off(self) -> bool:
        """Tell that it cannot."""
        return False

    def can_filter_hosts(self) -> bool:
        """Tell that it cannot."""
        return False

    def keeps_folders_private(self, network: Network) -> bool:
        """Tell that nothing is lost: there is no wall, and every command can open every workspace by its path."""
        return True

    async def launcher(self, workspace: Workspace, terms: Terms) -> Launcher:
        """Return what starts the commands of one sandbox."""
        return RestrictedLauncher(
            spawner=self._spawner,
            calls=self._beginnings.of(workspace.job_uid),
            workspace=workspace,
            walls=None,
            filter_program=None,
            terms=terms,
        )

    def settle(self) -> None:
        """Begin nothing."""

    async def close(self) -> None:
        """Give back what is held."""
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


class Beginnings:
    """What commands begin with, by their user. One per tier."""

    def __init__(self, make: Callable[[int | None], CallList]) -> None:
        """Remember how that of a user is made."""
        self._make = make
        self._of: dict[int | None, CallList] = {}

    def of(self, uid: int | None) -> CallList:
        """Return that of a user, which is copied, never changed; 5 KB are kept of each. Called once per sandbox."""
        calls = self._of.get(uid)
        if calls is None:
            calls = self._of[uid] = self._make(uid)
        return calls


def _restricted(trampoline: Trampoline, *, changes_user: bool) -> Beginnings:
    """Return what commands begin with that put up their walls themselves."""
    shared = _shared_calls(trampoline, changes_user=changes_user)
    if changes_user:
        rights.empty_bounding_set(shared)
    return Beginnings(partial(RestrictedLauncher.beginning, shared))


def _shared_calls(trampoline: Trampoline, *, changes_user: bool) -> CallList:
    """Return what the commands of all sandboxes of a tier begin with."""
    calls = CallList(trampoline.machine)
    if changes_user:
        rights.give_up_root(calls)
    return calls
