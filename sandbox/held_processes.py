"""The processes of a tree, found from parent to child and held by their pidfds.

The pidfd is opened before anything is read of a process. While a signal can be sent through it the process is not
reaped, so what was read under its pid until then was its own, and whoever gets the pid next gets no signal. A
parent is asked in this way once its children were read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Self

from sandbox import procfs
from sandbox.process import PAUSE_S, wait_gone
from sandbox.procfs import ProcStat

Accept = Callable[[ProcStat], bool]
_SHARE_OF_FILES = 4


class HeldProcess(NamedTuple):
    """One process."""

    stat: ProcStat
    """As it was when it was found."""
    pidfd: int
    """Negative where there was no descriptor for it: its start time tells whether it is still the same then."""

    def send(self, number: int) -> bool:
        """Send it a signal, 0 for none; tell whether it is there to be sent one, if only as a zombie."""
        pidfd = self.pidfd if self.pidfd >= 0 else procfs.open_process(self.stat)
        if pidfd is None:
            return False
        try:
            return procfs.send_signal(pidfd, number)
        finally:
            if pidfd != self.pidfd:
                os.close(pidfd)

    def lives(self) -> bool:
        """Tell whether it has not ended; asked of one without a pidfd only."""
        stat = procfs.read_stat(self.stat.pid)
        return stat is not None and stat.start_ticks == self.stat.start_ticks and stat.alive

    def close(self) -> None:
        """Give the descriptor back. Called once."""
        if self.pidfd >= 0:
            os.close(self.pidfd)

    def reap(self) -> None:
        """Collect it if it has ended and is a child of this process; its pid is free after that."""
        if self.pidfd < 0:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)


class HeldProcesses:
    """A tree, from the first look until it is left, with at most a quarter of the descriptors that this process may have.

    Used for every kill, for a stop, and now and then by bounds that no kernel keeps. Blocks never.
    """

    def __init__(self) -> None:
        self._held: dict[int, HeldProcess] = {}
        self.missed = False
        """Whether a child of this process ended while the last look was at it, or before: it may have left another one."""
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE_OF_FILES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held.values():
            held.close()
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[HeldProcess]:
        return iter(self._held.values())

    def pids(self) -> list[int]:
        """Return who is held."""
        return list(self._held)

    def look(
        self, own: Iterable[int], accept: Accept, number: signal.Signals | None = None
    ) -> list[HeldProcess]:
        """Hold what is not held yet of a tree; return it, each parent before its children.

        Args:
            own: Children of this process.
            accept: Tells of each of them whether it is of the tree; with each of the tree all that descends from it is.
            number: Sent to each before its children are read, so that one that is stopped has no more of them.
        """
        children = procfs.children_reader()
        self.missed = False
        for held in [each for each in self._held.values() if not each.send(0)]:
            self._forget(held)
        found = self._new(own, os.getpid(), accept)
        _send(found, number)
        visited = [*self._held.values()]
        fresh = list(found)
        for parent in visited:  # grows meanwhile
            found = self._new(children(parent.stat.pid), parent.stat.pid, None)
            if not found:
                continue
            if not parent.send(0):
                for held in found:
                    self._forget(held)
                continue
            _send(found, number)
            fresh += found
            visited += found
        return fresh

    async def wait_gone(self, timeout_s: float) -> None:
        """Wait until all of them have ended, or for some seconds."""
        pidfds = [held.pidfd for held in self._held.values() if held.pidfd >= 0]
        if pidfds:
            await wait_gone(pidfds, timeout_s)
        else:
            await asyncio.sleep(min(timeout_s, PAUSE_S))

    def take_ended(self) -> list[HeldProcess]:
        """Return those that have ended, which are not held any more; the caller closes them."""
        ended = set(procfs.ended(held.pidfd for held in self._held.values() if held.pidfd >= 0))
        found = [
            held
            for held in self._held.values()
            if held.pidfd in ended or (held.pidfd < 0 and not held.lives())
        ]
        for held in found:
            del self._held[held.stat.pid]
        return found

    def _new(self, pids: Iterable[int], parent: int, accept: Accept | None) -> list[HeldProcess]:
        """Hold those of a parent's children that are new, live, and are its children still."""
        found = []
        for pid in pids:
            if pid in self._held:
                continue
            held = self._opened(pid)
            if held is None or not held.stat.alive:
                self.missed = self.missed or accept is not None
            if held is None:
                continue
            stat = held.stat
            if stat.ppid == parent and stat.alive and (accept is None or accept(stat)):
                self._held[pid] = held
                found.append(held)
            else:
                held.close()
        return found

    def _opened(self, pid: int) -> HeldProcess | None:
        """Return what a process is, with its pidfd if there is one to have."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        except OSError:  # no descriptor is left
            pidfd = -1
        if len(self._held) >= self._most and pidfd >= 0:
            os.close(pidfd)
            pidfd = -1
        stat = procfs.read_stat(pid)
        if stat is not None:
            return HeldProcess(stat, pidfd)
        if pidfd >= 0:
            os.close(pidfd)
        return None

    def _forget(self, held: HeldProcess) -> None:
        del self._held[held.stat.pid]
        held.close()


def _send(found: Iterable[HeldProcess], number: signal.Signals | None) -> None:
    if number is not None:
        for held in found:
            held.send(number)
