"""The tree of a command in its own PID namespace: whoever kills its init kills all of it.

bubblewrap is two processes: the monitor, our child, and the namespace's init, which the monitor reports
as ``child-pid``. The kernel kills every member of the namespace with its init (pid_namespaces(7)). When
the main command ends the monitor ends and its death takes the init along, so a monitor is kept
stopped while the others of the tree have their grace.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

from sandbox import procfs
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.process import ChildProcess, wait_gone
from sandbox.process_tree import KILL_BOUND_S, LiveCommand, SweptTree
from sandbox.procfs import ProcStat

_REPORT_BOUND_S = 2.0
_MONITOR_BOUND_S = 2.0
_PASSES = 3


@dataclass(frozen=True, slots=True)
class _Init:
    """The first process of a PID namespace, as the host sees it."""

    pid: int
    pidfd: int


class NamespaceTree:
    """The tree of one bubblewrap."""

    def __init__(
        self,
        child: ChildProcess,
        status: BubblewrapStatus,
        command: LiveCommand,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._child = child
        self._status = status
        self._loop = loop
        self._swept = SweptTree(child, command, loop)
        self._init: _Init | None = None
        self._closed = False
        self._gone = False
        self._continuing: asyncio.Task[None] | None = None

    def members(self) -> list[ProcStat]:
        """Return every process but the two of bubblewrap."""
        init = self._find_init()
        return [] if init is None else self._living(init)

    def terminate(self) -> bool:
        """Send TERM to every process but the two of bubblewrap, and keep its monitor from ending."""
        init = self._find_init()
        if init is None:
            return False
        self._child.signal(signal.SIGSTOP)
        signalled: set[int] = set()
        for _ in range(_PASSES):
            fresh = [stat for stat in self._living(init) if stat.pid not in signalled]
            if not fresh:
                break
            for stat in procfs.parents_first(fresh):
                self._signal(stat)
            signalled.update(stat.pid for stat in fresh)
        if not signalled:
            self._child.signal(signal.SIGCONT)
            return False
        self._continuing = self._loop.create_task(self._continue_when_empty(init))
        return True

    async def wait_empty(self) -> None:
        """Return: the monitor ends only after the namespace is empty, and that has been awaited."""

    async def kill(self) -> tuple[str, ...]:
        """Kill the namespace through its init, then a monitor that does not end by itself."""
        if self._closed:
            return ()
        self._status.drain()
        if not self._child.has_exited:
            await self._status.wait_reported(_REPORT_BOUND_S)
        init = self._find_init()
        gone = True
        if init is not None and not self._reap_init():
            procfs.send_signal(init.pidfd, signal.SIGKILL)
            if not self._child.has_exited:
                self._child.signal(signal.SIGCONT)
            gone = await wait_gone([init.pidfd], KILL_BOUND_S)
        if not self._child.has_exited:
            await self._end_monitor()
        if init is None and not self._status.reported:
            return await self._swept.kill()
        self._reap_init()
        if gone and self._child.has_exited:
            self._gone = init is not None or self._init_has_gone()
            return ()
        return await self._swept.kill()

    def main_is_running(self) -> bool:
        """Tell whether bubblewrap still sets up, or the command has not ended as far as it knows."""
        self._status.drain()
        return self._status.exit_code is None and self._child.is_running()

    def verified_dead(self) -> bool:
        """Tell whether the namespace's init, which outlives every member, was seen dead."""
        return self._gone

    def close(self) -> None:
        """Give back the descriptors."""
        self._closed = True
        if self._continuing is not None:
            self._continuing.cancel()
        self._swept.close()
        self._status.close()
        if self._init is not None:
            os.close(self._init.pidfd)
            self._init = None

    async def _end_monitor(self) -> None:
        """Let the monitor report the end it has seen; kill it if it is stuck in setting up."""
        if self._status.reported:
            try:
                await asyncio.wait_for(self._child.wait_exited(), _MONITOR_BOUND_S)
            except TimeoutError:
                self._child.kill_group()
        else:
            self._child.kill_group()
        try:
            await asyncio.wait_for(self._child.wait_exited(), _MONITOR_BOUND_S)
        except TimeoutError:
            return

    def _find_init(self) -> _Init | None:
        """Return the namespace's init, once it is known and while it may live."""
        if self._init is not None:
            return self._init
        self._status.drain()
        pid = self._status.child_pid
        if pid is None:
            return None
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it is gone, which ``_init_has_gone`` finds out, or no descriptor is left
            return None
        if self._is_init(pid, pidfd):
            self._init = _Init(pid=pid, pidfd=pidfd)
        else:
            os.close(pidfd)
        return self._init

    def _is_init(self, pid: int, pidfd: int) -> bool:
        """Tell whether what a descriptor is of can be the init, and not somebody who got its pid."""
        if self._child.has_exited:
            # Then it is an orphan, that is, ours.
            return procfs.is_own_child(pidfd)
        stat = procfs.read_stat(pid)
        if stat is None or stat.ppid not in {self._child.pid, os.getpid()}:
            return False
        # What was read is of who the descriptor is of, if that one is there still.
        return procfs.send_signal(pidfd, 0)

    def _init_has_gone(self) -> bool:
        # Asked without a descriptor, since none may be left.
        pid = self._status.child_pid
        return pid is not None and not os.path.lexists(f"/proc/{pid}")

    def _reap_init(self) -> bool:
        """Collect the init if it became our child and has ended; tell whether it was collected now."""
        if self._init is None:
            return False
        try:
            return os.waitid(os.P_PIDFD, self._init.pidfd, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            return False

    def _living(self, init: _Init) -> list[ProcStat]:
        processes = procfs.snapshot()
        found = procfs.descendants(processes, {init.pid})
        return [processes[pid] for pid in found if processes[pid].alive]

    def _signal(self, stat: ProcStat) -> None:
        if (pidfd := procfs.open_process(stat)) is not None:
            procfs.send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)

    async def _continue_when_empty(self, init: _Init) -> None:
        while not self._closed and not await wait_gone([init.pidfd], KILL_BOUND_S):
            continue
        if not self._child.has_exited:
            self._child.signal(signal.SIGCONT)
