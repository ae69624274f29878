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
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sandbox import procfs
from sandbox.env import SANDBOX_MARKER
from sandbox.held_processes import HeldProcess, HeldProcesses
from sandbox.process import ChildProcess, kill_all
from sandbox.procfs import ProcStat

KILL_BOUND_S = 5.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
REAP_PERIOD_S = 1.0
_PASS_S = 0.5
_STOP_PASSES = 5
_LISTS = 10
"""How often what is left is listed while everything that is found has ended by then."""
_MISSES = 30
"""How often a tree is looked for again in which every process ended before it could be stopped."""


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
own_helpers: set[int] = set()
"""Children that are no command and no orphan of one: whoever spawns and collects them adds and removes them here."""


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
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _TICKS_PER_S // 1_000_000_000


def forget(command: LiveCommand) -> None:
    """Withdraw a command whose tree is gone. Idempotent."""
    if command in _LIVE:
        _LIVE.remove(command)


def _known() -> Iterator[int | None]:
    """Return the children of this process that are no orphans."""
    yield from own_helpers
    yield from (command.leader for command in _LIVE)


def _strangers() -> Iterator[ProcStat]:
    """Return the children of this process that are in another session and not registered."""
    for pid in procfs.adopted_children().difference(_known()):
        stat = procfs.read_stat(pid)
        if stat is not None and stat.session != os.getsid(0):
            yield stat


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
    """Tell whether a process of a user lives below this one, which adopts all orphans. Reads all of /proc.

    One that has just ended counts: it may have left another.
    """
    reap_zombies()
    below = procfs.descendants(procfs.snapshot(), {os.getpid()})
    return any(procfs.real_uid(pid) == uid for pid in below)


def users_of_others() -> frozenset[int]:
    """Return whose the processes of this host are that are not below this one. Called once at start."""
    processes = procfs.snapshot()
    found = processes.keys() - procfs.descendants(processes, {os.getpid()})
    return frozenset(uid for pid in found if (uid := procfs.real_uid(pid)) is not None)


def reap_zombies() -> bool:
    """Collect dead orphans; nobody else will, and their pids are not free before. Tell whether any lives.

    One that is dead may have left another since the children were listed, so they are listed until none is.
    """
    for _ in range(_LISTS):
        living = dead = False
        for stat in _strangers():
            if (living and stat.alive) or not procfs.no_new_privs(stat.pid):
                continue
            if stat.alive:
                living = True
            elif _may_reap(stat):
                procfs.reap_child(stat.pid)
                dead = True
        if living or not dead:
            return living
    return True


def _may_reap(stat: ProcStat) -> bool:
    """Tell whether a child may be collected that looks like an orphan.

    A thread may have spawned a leader that is dead already and not yet known here. So what is no older than a command
    that is being started waits for the next sweep.
    """
    return all(stat.start_ticks < c.start_ticks for c in _LIVE if c.leader is None)


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


class Sweeps:
    """Collects dead orphans now and then, while there are commands that may have left some. One for all of a loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that there are some. Called with each command."""
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(REAP_PERIOD_S, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        reap_zombies()
        if self._loop is not loop:
            return
        if _LIVE:
            loop.call_later(REAP_PERIOD_S, self._sweep, loop)
        else:
            self._loop = None


_SWEEPS = Sweeps()


class SweptTree:
    """The tree of one command without a PID namespace, found by looking."""

    def __init__(
        self, child: ChildProcess, command: LiveCommand, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._child = child
        self._command = command
        self._loop = loop
        _SWEEPS.begin(loop)
        self._nobody_left = False
        self._killing: asyncio.Task[tuple[str, ...]] | None = None

    def members(self) -> list[ProcStat]:
        """Return every process of the tree that lives."""
        with HeldProcesses() as held:
            return [each.stat for each in self._look(held)]

    def terminate(self) -> bool:
        """Send TERM once to every process of the tree, to parents first; tell whether there was any.

        A shell that is told to end after its child says first that the child was terminated.
        """
        signalled = False
        with HeldProcesses() as held:
            for _ in range(_STOP_PASSES):
                fresh = self._look(held)
                if not fresh:
                    break
                for each in fresh:
                    each.send(signal.SIGTERM)
                signalled = True
        return signalled

    async def wait_empty(self) -> None:
        """Wait until no process of the tree is left."""
        with HeldProcesses() as held:
            while True:
                self._look(held)
                if not held:
                    return
                await held.wait_gone(REAP_PERIOD_S)
                self._collect_ended(held)

    async def kill(self) -> tuple[str, ...]:
        """Kill the tree and return what survived; bounded by 5 s. Who comes while it is being killed waits for that."""
        if self._killing is None or self._killing.done():
            if self._has_gone():
                return ()
            self._killing = self._loop.create_task(self._kill())
        return await asyncio.shield(self._killing)

    def _has_gone(self) -> bool:
        """Tell whether it is certain that nothing is left of the tree, and note it."""
        if reap_zombies() or self._child.is_running():
            return False
        self._nobody_left = True
        return True

    async def _kill(self) -> tuple[str, ...]:
        deadline = self._loop.time() + KILL_BOUND_S
        misses = 0
        with HeldProcesses() as held:
            while True:
                self._freeze(held)
                left = deadline - self._loop.time()
                if held and left <= 0:
                    return tuple(f"{pid} {procfs.command_line(pid)}" for pid in held.pids())
                if held:
                    for each in held:
                        each.send(signal.SIGKILL)
                    await held.wait_gone(min(left, _PASS_S))
                    self._collect_ended(held)
                elif held.missed and misses < _MISSES and left > 0:
                    misses += 1  # of a chain that forks and ends faster than it is looked at
                else:
                    return ()
                await asyncio.sleep(0)  # whatever forks on must not keep the loop from others
                if self._has_gone():
                    return ()

    def main_is_running(self) -> bool:
        """Tell whether the leader has not ended at this moment."""
        return self._child.is_running()

    def verified_dead(self) -> bool:
        """Tell whether there was no orphan at all at the end: whose one is, is found by what it shows."""
        return self._nobody_left

    def close(self) -> None:
        """Claim no orphan any more. Called once the tree is gone."""
        forget(self._command)

    def _freeze(self, held: HeldProcesses) -> None:
        """Stop every member before any is killed: a fork bomb cannot outrun a sweep it is frozen in."""
        for _ in range(_STOP_PASSES):
            if not self._look(held, signal.SIGSTOP):
                break

    def _look(self, held: HeldProcesses, number: signal.Signals | None = None) -> list[HeldProcess]:
        """Hold what is new of the tree; return that."""
        own = [self._child.pid] if self._child.is_running() else []
        own += procfs.adopted_children().difference(_known())
        return held.look(own, self._is_root, number)

    def _is_root(self, stat: ProcStat) -> bool:
        """Tell whether a child of this process is the leader, or what an ended parent left of the tree."""
        if self._child.pid in (stat.pid, stat.session):
            return True
        if stat.session == os.getsid(0) or not procfs.no_new_privs(stat.pid):
            return False
        return _owns(self._command, stat)

    def _collect_ended(self, held: HeldProcesses) -> None:
        for each in held.take_ended():
            if each.stat.pid != self._child.pid and _may_reap(each.stat):
                each.reap()
            each.close()


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
