"""Finding and killing the whole tree of a command where no PID namespace does it.

This process is a subreaper, so a member of a command's tree is always one of: the leader, a descendant of
it, a member of its session, or an orphan that became a child of this process, with what descends
from it. Orphans are told apart from children of the agent-runner itself by three facts that a
job cannot take back together: they are not registered here, they are in another session, and they
have no_new_privs set. Whose orphan it is says its user, if every sandbox has one to itself, else the marker in its
environment, else its session, else which commands were alive when it was born.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox import procfs
from sandbox.env import SANDBOX_MARKER
from sandbox.process import ChildProcess, kill_all, wait_gone
from sandbox.procfs import ProcStat

KILL_BOUND_S = 5.0
REAP_PERIOD_S = 1.0
_PASS_S = 0.5
_STOP_PASSES = 5


@dataclass(slots=True, eq=False)
class LiveCommand:
    """A command whose tree is not known to be gone."""

    name: str
    start_ticks: int
    leader: int | None = None
    uid: int | None = None
    """Its user, if no other command that is alive has the same."""
    has_begun: bool = True
    """Whether the job's own program may run. Until then nothing can be its orphan."""

    def begin(self) -> None:
        """Note that it runs from now on. Called once for one that was spawned before there was a job."""
        self.start_ticks = _ticks()
        self.has_begun = True


_LIVE: list[LiveCommand] = []
"""Every live command of this process: being a subreaper is a property of the process, so this is too."""


def register(name: str, uid: int | None = None) -> LiveCommand:
    """Announce a command before it is spawned, so that no other sweep takes its first process.

    Args:
        name: Of its sandbox.
        uid: Its user, if no other command that is alive has the same.
    """
    command = LiveCommand(name=name, start_ticks=_ticks(), uid=uid)
    _LIVE.append(command)
    return command


def _ticks() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 1_000_000_000


def forget(command: LiveCommand) -> None:
    """Withdraw a command whose tree is gone. Idempotent."""
    if command in _LIVE:
        _LIVE.remove(command)


def orphans() -> list[ProcStat]:
    """Return the children of this process that some command left, zombies included."""
    known = {command.leader for command in _LIVE}
    session = os.getsid(0)
    found = []
    for pid in procfs.adopted_children() - known:
        stat = procfs.read_stat(pid)
        if stat is not None and stat.session != session and procfs.no_new_privs(pid):
            found.append(stat)
    return found


def count_processes(uid: int | None) -> int:
    """Return how many threads count against RLIMIT_NPROC of a user; of this one for None.

    Without a user namespace the kernel counts all processes of a user, so a bound on one command is
    its own share on top of them: a fuse, not a wall.
    """
    owner = os.getuid() if uid is None else uid
    total = 0
    for stat in procfs.snapshot().values():
        try:
            if os.stat(f"/proc/{stat.pid}").st_uid == owner:  # noqa: PTH116
                total += stat.threads
        except FileNotFoundError:
            continue
    return total


def has_processes(uid: int) -> bool:
    """Tell whether a process of a user lives below this one, which adopts all orphans. Reads all of /proc."""
    processes = procfs.snapshot()
    below = procfs.descendants(processes, {os.getpid()})
    return any(processes[pid].alive and procfs.real_uid(pid) == uid for pid in below)


def users_of_others() -> frozenset[int]:
    """Return whose the processes of this host are that are not below this one. Called once at start."""
    processes = procfs.snapshot()
    found = processes.keys() - procfs.descendants(processes, {os.getpid()})
    return frozenset(uid for pid in found if (uid := procfs.real_uid(pid)) is not None)


def reap_zombies() -> list[ProcStat]:
    """Collect dead orphans; nobody else will, and their pids are not free before. Return the living.

    A thread may have spawned a leader that is dead already and not yet known here. It looks like an
    orphan, so what is no older than a command that is being started waits for the next sweep.
    """
    starting = [command.start_ticks for command in _LIVE if command.leader is None]
    living = []
    for stat in orphans():
        if stat.alive:
            living.append(stat)
        elif all(stat.start_ticks < ticks for ticks in starting):
            procfs.reap_child(stat.pid)
    return living


def _owns(command: LiveCommand, orphan: ProcStat) -> bool:
    """Tell whether an orphan may be killed as a part of this command."""
    if command.uid is not None:
        return procfs.real_uid(orphan.pid) == command.uid
    marker = procfs.environ_value(orphan.pid, SANDBOX_MARKER)
    if marker == command.name:
        return True
    others = [other for other in _LIVE if other is not command and other.has_begun]
    if any(marker == other.name or orphan.session == other.leader for other in others):
        return False
    return not any(other.start_ticks <= orphan.start_ticks for other in others)


class SweptTree:
    """The tree of one command without a PID namespace, found by looking."""

    def __init__(
        self, child: ChildProcess, command: LiveCommand, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._child = child
        self._command = command
        self._loop = loop
        self._timer = loop.call_later(REAP_PERIOD_S, self._reap_now_and_then)
        self._nobody_left = False

    def members(self) -> list[ProcStat]:
        """Return every process of the tree that lives."""
        return self._members()

    def terminate(self) -> bool:
        """Send TERM once to every process of the tree; tell whether there was any."""
        signalled: set[int] = set()
        for _ in range(_STOP_PASSES):
            fresh = [stat for stat in self._members() if stat.pid not in signalled]
            if not fresh:
                break
            self._signal(procfs.parents_first(fresh), signal.SIGTERM)
            signalled.update(stat.pid for stat in fresh)
        return bool(signalled)

    async def wait_empty(self) -> None:
        """Wait until no process of the tree is left."""
        while members := self._members():
            pidfds = [fd for stat in members if (fd := procfs.open_process(stat)) is not None]
            try:
                await wait_gone(pidfds, REAP_PERIOD_S)
            finally:
                for pidfd in pidfds:
                    os.close(pidfd)

    async def kill(self) -> tuple[str, ...]:
        """Kill the tree and return what survived; bounded by 5 s."""
        deadline = self._loop.time() + KILL_BOUND_S
        while True:
            if not reap_zombies() and self._child.has_exited:
                self._nobody_left = True
                return ()
            members = self._frozen()
            if not members:
                return ()
            left = deadline - self._loop.time()
            if left <= 0:
                return tuple(f"{m.pid} {procfs.command_line(m.pid)}" for m in members)
            await kill_all(members, min(left, _PASS_S))
            # The loop must see the leader's end before it may be told from a survivor.
            await asyncio.sleep(0)

    def main_is_running(self) -> bool:
        """Tell whether the leader has not ended at this moment."""
        return self._child.is_running()

    def verified_dead(self) -> bool:
        """Tell whether there was no orphan at all at the end: whose one is, is found by what it shows."""
        return self._nobody_left

    def close(self) -> None:
        """Stop looking after zombies. Called once the tree is gone."""
        self._timer.cancel()
        forget(self._command)

    def _frozen(self) -> list[ProcStat]:
        """Stop every member before any is killed: a fork bomb cannot outrun a sweep it is frozen in."""
        stopped: set[int] = set()
        members = self._members()
        for _ in range(_STOP_PASSES):
            fresh = [stat for stat in members if stat.pid not in stopped]
            if not fresh:
                break
            self._signal(fresh, signal.SIGSTOP)
            stopped.update(stat.pid for stat in fresh)
            members = self._members()
        return members

    def _members(self) -> list[ProcStat]:
        processes = procfs.snapshot()
        leader = self._child.pid
        roots = {stat.pid for stat in orphans() if _owns(self._command, stat)}
        roots |= {stat.pid for stat in processes.values() if stat.session == leader}
        roots.add(leader)
        found = roots | procfs.descendants(processes, roots)
        return [processes[pid] for pid in found if pid in processes and processes[pid].alive]

    def _signal(self, members: list[ProcStat], number: signal.Signals) -> None:
        for stat in members:
            if (pidfd := procfs.open_process(stat)) is not None:
                procfs.send_signal(pidfd, number)
                os.close(pidfd)

    def _reap_now_and_then(self) -> None:
        reap_zombies()
        self._timer = self._loop.call_later(REAP_PERIOD_S, self._reap_now_and_then)


async def kill_marked(marker: str, value: str, spare: Callable[[str], bool]) -> list[str]:
    """Kill every process whose environment carries ``marker=value``; return their sandboxes' names.

    Called once at start, for what an earlier process left. The marker is read again after the pidfd
    is open, so that no reused pid is ever signalled.

    Args:
        marker: Name of the variable.
        value: What it must be.
        spare: Tells by a sandbox's name that it is alive and must be left alone.
    """
    names: set[str] = set()
    deadline = time.monotonic() + KILL_BOUND_S
    while (left := deadline - time.monotonic()) > 0:
        found = []
        for stat in procfs.snapshot().values():
            if not stat.alive or stat.pid == os.getpid():
                continue
            if procfs.environ_value(stat.pid, marker) != value:
                continue
            name = procfs.environ_value(stat.pid, SANDBOX_MARKER) or str(stat.pid)
            if not spare(name):
                names.add(name)
                found.append(stat)
        if not found:
            break
        await kill_all(found, min(left, _PASS_S))
    return sorted(names)
