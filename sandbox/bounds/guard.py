"""The bounds of a sandbox and of each of its commands: which keeper each has, from before the first instruction to the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.bounds.control_group import ControlGroup
from sandbox.bounds.control_groups import ControlGroups
from sandbox.errors import SandboxBrokenError
from sandbox.limits import Keeper, KeptLimit, Limit, Limits

if TYPE_CHECKING:  # loaded for the first command that has bounds
    from sandbox.bounds.watchdog import Look, Members, Watchdog

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What keeps the bounds of sandboxes that have the same ones. Made by ``bounds_of``; costs nothing for those without any."""

    limits: Limits
    kept: tuple[KeptLimit, ...]
    groups: ControlGroups
    extra_pids: int
    """Processes of ours beside those of a command."""
    own_dev: bool
    """Whether the commands have a /dev of their own, whose files are in memory."""

    def process_limits(self) -> Limits:
        """Return the bounds that each process has to be given, because nothing keeps them for all together."""
        if not self.kept:
            return self.limits
        by = {kept.limit: kept.by for kept in self.kept}
        in_group = {Keeper.CGROUP_V1, Keeper.CGROUP_V2}
        disk = self.limits.disk_bytes
        file_bytes = self.limits.file_bytes
        return replace(
            self.limits,
            memory_bytes=None if by.get(Limit.MEMORY) in in_group else self.limits.memory_bytes,
            pids=None if by.get(Limit.PIDS) in in_group else self.limits.pids,
            file_bytes=file_bytes if disk is None else min(file_bytes, disk),
        )

    def guard(self, name: str, folders: Sequence[Path]) -> Guard:
        """Return what keeps the bounds of the next command of a sandbox that has some.

        Args:
            name: The sandbox.
            folders: Those whose place on the disk counts.

        Raises:
            SandboxBrokenError: The kernel refused a control group that it gave before.
        """
        try:
            group = self.groups.create(name, self.limits, self.extra_pids)
        except OSError as error:
            raise SandboxBrokenError(f"no control group for {name}: {error}") from error
        return Guard(self, group, folders)


def bounds_of(
    *,
    limits: Limits,
    groups: ControlGroups,
    extra_pids: int,
    own_dev: bool,
    counts_alone: bool,
) -> Bounds:
    """Return the bounds of a sandbox and what keeps each.

    Args:
        limits: What is asked for.
        groups: The control groups of the provider.
        extra_pids: Processes of ours beside those of a command.
        own_dev: Whether the commands have a /dev of their own.
        counts_alone: Whether the kernel counts the processes of the sandbox by themselves, without a group.
    """
    kept: list[KeptLimit] = []
    if asked := limits.asked():
        otherwise = {
            Limit.MEMORY: Keeper.WATCHDOG,
            Limit.CPUS: Keeper.NOBODY,
            Limit.PIDS: Keeper.RLIMIT if counts_alone else Keeper.WATCHDOG,
            Limit.DISK: Keeper.WATCHDOG,
        }
        by = {**otherwise, **groups.keepers()}
        kept = [KeptLimit(limit=limit, value=value, by=by[limit]) for limit, value in asked.items()]
    return Bounds(
        limits=limits,
        kept=tuple(kept),
        groups=groups,
        extra_pids=extra_pids,
        own_dev=own_dev,
    )


class Guard:
    """Keeps the bounds of one command: ``doors`` before it is there, ``watch`` while it runs, ``end`` once its tree is dead."""

    def __init__(self, bounds: Bounds, group: ControlGroup | None, folders: Sequence[Path]) -> None:
        self._bounds = bounds
        self._group = group
        self._folders = folders
        self._watchdog: Watchdog | None = None

    def open_doors(self) -> list[int]:
        """Return descriptors to which the command's first process writes ``0`` to be bounded; the caller closes them.

        Raises:
            OSError: A group is gone, or the host has no descriptor left.
        """
        return [] if self._group is None else self._group.open_doors()

    def watch(self, members: Members, on_exceeded: Callable[[Limit], None]) -> None:
        """Look after what the kernel does not. Called once, when the command has been started.

        Args:
            members: Returns the living processes of the command.
            on_exceeded: Called once for each bound that is passed; it ends the command.
        """
        from sandbox.bounds.watchdog import Watchdog  # noqa: PLC0415 - few commands have bounds

        self._watchdog = Watchdog(self._looks(members), on_exceeded)

    def abandon(self) -> None:
        """Give everything back at once, for a command that was not started after all."""
        if self._group is not None and not self._group.try_remove():
            logger.warning(
                "A control group could not be removed", extra={"action": "control_group_kept"}
            )

    async def end(self) -> Limit | None:
        """Give everything back; return the bound for which the kernel killed a process. Called once, after the tree is dead."""
        if self._watchdog is not None:
            await self._watchdog.stop()
        if self._group is None:
            return None
        killed = self._group.oom_kills() > 0
        await self._remove(self._group)
        return Limit.MEMORY if killed else None

    def _looks(self, members: Members) -> list[Look]:
        from sandbox.bounds.watchdog import (  # noqa: PLC0415 - as above
            DiskLook,
            MemoryLook,
            OomLook,
            ProcessLook,
        )

        looks: list[Look] = []
        by = {kept.limit: kept.by for kept in self._bounds.kept}
        limits = self._bounds.limits
        if self._group is not None and by.get(Limit.MEMORY) is Keeper.CGROUP_V1:
            looks.append(OomLook(self._group))
        if limits.memory_bytes is not None and by[Limit.MEMORY] is Keeper.WATCHDOG:
            looks.append(MemoryLook(members, limits.memory_bytes, own_dev=self._bounds.own_dev))
        if limits.pids is not None and by[Limit.PIDS] is Keeper.WATCHDOG:
            looks.append(ProcessLook(members, limits.pids))
        if limits.disk_bytes is not None:
            looks.append(DiskLook(members, self._folders, limits.disk_bytes))
        return looks

    async def _remove(self, group: ControlGroup) -> None:
        try:
            if not group.try_remove():
                await asyncio.to_thread(group.remove)
        except OSError as error:
            # The next start of the agent-runner, and gc, try again.
            logger.warning(
                "A control group could not be removed",
                extra={"action": "control_group_kept", "error": str(error)},
            )
