"""Bounds that no kernel keeps here: what a command takes is looked at now and then, and too much is its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from sandbox.bounds.control_group import ControlGroup
from sandbox.bounds.disk_use import DiskUse
from sandbox.bounds.memory_use import memory_bytes, memory_file_bytes, shared_memory_bytes
from sandbox.limits import Limit
from sandbox.procfs import ProcStat

MEMORY_PERIOD_S = 0.25
DISK_PERIOD_S = 1.0
_REST = 10
"""How many times as long as a look has taken the next one waits: a tenth of a CPU at most."""

Members = Callable[[], list[ProcStat]]

logger = logging.getLogger(__name__)


class Look(Protocol):
    """One thing to look at."""

    limit: Limit
    period_s: float

    async def too_much(self) -> bool:
        """Tell whether the bound is passed at this moment."""
        ...


class OomLook:
    """Whether the kernel killed a process of a control group: on version 1 it spares the others."""

    limit = Limit.MEMORY
    period_s = MEMORY_PERIOD_S

    def __init__(self, group: ControlGroup) -> None:
        self._group = group

    async def too_much(self) -> bool:
        """Tell whether it did; one file is read."""
        return self._group.oom_kills() > 0


class MemoryLook:
    """What the processes of a command take together."""

    limit = Limit.MEMORY
    period_s = MEMORY_PERIOD_S

    def __init__(self, members: Members, bound: int, *, own_dev: bool) -> None:
        self._members = members
        self._bound = bound
        self._own_dev = own_dev

    async def too_much(self) -> bool:
        """Tell whether it is more than the bound."""
        pids = [stat.pid for stat in self._members()]
        return await asyncio.to_thread(self._measure, pids) > self._bound

    def _measure(self, pids: list[int]) -> int:
        files = memory_file_bytes(pids)
        if self._own_dev:
            files += max((shared_memory_bytes(pid) for pid in pids[:3]), default=0)
        return memory_bytes(pids, self._bound, files)


class ProcessLook:
    """How many processes and threads a command has."""

    limit = Limit.PIDS
    period_s = MEMORY_PERIOD_S

    def __init__(self, members: Members, bound: int) -> None:
        self._members = members
        self._bound = bound

    async def too_much(self) -> bool:
        """Tell whether it is more than the bound."""
        return sum(stat.threads for stat in self._members()) > self._bound


class DiskLook:
    """What the folders of a command take, and the files that it holds open without a name."""

    limit = Limit.DISK
    period_s = DISK_PERIOD_S

    def __init__(self, members: Members, folders: Sequence[Path], bound: int) -> None:
        self._members = members
        self._folders = folders
        self._bound = bound

    async def too_much(self) -> bool:
        """Tell whether it is more than the bound."""
        pids = [stat.pid for stat in self._members()]
        return await asyncio.to_thread(self._measure, pids) > self._bound

    def _measure(self, pids: Iterable[int]) -> int:
        use = DiskUse(self._bound)
        for folder in self._folders:
            use.add_folder(folder)
        use.add_unlinked(pids, self._folders[0].stat().st_dev)
        return use.total


class Watchdog:
    """Looks after one command, from its start until ``stop``. Used on one event loop."""

    def __init__(self, looks: Sequence[Look], on_exceeded: Callable[[Limit], None]) -> None:
        """Begin to look.

        Args:
            looks: What to look at.
            on_exceeded: Called once for each bound that is passed.
        """
        self._on_exceeded = on_exceeded
        self._tasks = [asyncio.ensure_future(self._watch(look)) for look in looks]

    async def stop(self) -> None:
        """Look no more. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _watch(self, look: Look) -> None:
        loop = asyncio.get_running_loop()
        pause_s = look.period_s
        while True:
            await asyncio.sleep(pause_s)
            began = loop.time()
            try:
                if await look.too_much():
                    self._on_exceeded(look.limit)
                    return
            except OSError as error:
                logger.warning(
                    "A bound could not be looked at",
                    extra={
                        "action": "bound_not_seen",
                        "limit": str(look.limit),
                        "error": str(error),
                    },
                )
            pause_s = max(look.period_s, _REST * (loop.time() - began))
