"""What the kernel says about processes, read from /proc directly: it is on the path of every command.

Rules of the text formats: proc(5). Every function answers "gone" instead of raising, because a
process may end between any two calls.
"""

from __future__ import annotations

import functools
import os
import select
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple

_READ_BYTES = 64 << 10
_LINE_BYTES = 4 << 10
_SURELY_ALL_BYTES = 2 << 10
"""The kernel ends a list of children early only where its page, of 4 KiB at least, has no room for one more."""
_LAST_FIELD = 20
"""How many words after the name are looked at, of the fifty that there are."""


class ProcStat(NamedTuple):
    """One line of ``/proc/<pid>/stat``."""

    pid: int
    command: str
    state: str
    ppid: int
    session: int
    threads: int
    start_ticks: int
    """Clock ticks since boot; with the pid it names one process for good."""

    @property
    def alive(self) -> bool:
        """Tell whether anything still runs; a main thread may be a zombie beside living threads."""
        return self.state not in "ZX" or self.threads > 1


def parse_stat(text: str) -> ProcStat:
    """Return the fields of a stat line; the command may hold spaces and parentheses."""
    head, _, tail = text.rpartition(")")
    pid, _, command = head.partition("(")
    fields = tail.split(maxsplit=_LAST_FIELD)
    return ProcStat(
        pid=int(pid),
        command=command,
        state=fields[0],
        ppid=int(fields[1]),
        session=int(fields[3]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )


def read_stat(pid: int) -> ProcStat | None:
    """Return what a process is, or None when it is gone."""
    text = _read(f"/proc/{pid}/stat", whole=False)
    return parse_stat(text.decode("utf-8", "replace")) if text else None


def snapshot() -> dict[int, ProcStat]:
    """Return every process that can be seen, by pid."""
    found = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208  # three times faster
        if entry.isdecimal() and (stat := read_stat(int(entry))) is not None:
            found[stat.pid] = stat
    return found


def descendants(processes: dict[int, ProcStat], roots: set[int]) -> set[int]:
    """Return the pids below these roots, the roots themselves not included."""
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        for pid in children.get(pending.pop(), ()):
            if pid not in found and pid not in roots:
                found.add(pid)
                pending.append(pid)
    return found


def children_reader() -> Callable[[int], Iterable[int]]:
    """Return what tells the children of a process: at each call, or as they are now where the kernel lists none."""
    if _lists_children():
        return _listed_children
    by_parent: dict[int, list[int]] = {}
    for stat in snapshot().values():
        by_parent.setdefault(stat.ppid, []).append(stat.pid)
    return lambda pid: by_parent.get(pid, ())


def _listed_children(pid: int) -> list[int]:
    """Return the children of all threads of a process; none of one that is gone."""
    folder = f"/proc/{pid}/task"
    try:
        # Links to itself, from its parent, and from the folder of each thread.
        threads = os.stat(folder).st_nlink - 2  # noqa: PTH116  # the hot path
        names = [str(pid)] if threads == 1 else os.listdir(folder)  # noqa: PTH208  # ditto
    except OSError:
        return []
    return [
        int(child)
        for name in names
        for child in (_read(f"{folder}/{name}/children") or b"").split()
    ]


@functools.cache
def _lists_children() -> bool:
    """Tell whether this kernel has CONFIG_PROC_CHILDREN."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")  # noqa: PTH110


def parents_first(processes: Iterable[ProcStat]) -> list[ProcStat]:
    """Return processes in an order in which each parent stands before its children.

    A shell that is told to end after its child says first that the child was terminated.
    """
    known = {stat.pid: stat for stat in processes}
    children: dict[int, list[ProcStat]] = {}
    for stat in known.values():
        children.setdefault(stat.ppid if stat.ppid in known else 0, []).append(stat)
    found = children.pop(0, [])
    for stat in found:  # grows meanwhile
        found += children.pop(stat.pid, [])
    # They were read one after the other, so that a pid that was used again can close a circle.
    return found + [stat for circle in children.values() for stat in circle]


def own_children() -> set[int]:
    """Return the pids of the direct children of this process, zombies included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208  # ditto
        content = _read(f"/proc/self/task/{task}/children")
        if content is None:
            if os.path.isdir(f"/proc/self/task/{task}"):  # noqa: PTH112  # the hot path
                # A kernel without CONFIG_PROC_CHILDREN.
                me = os.getpid()
                return {stat.pid for stat in snapshot().values() if stat.ppid == me}
            continue
        found.update(int(pid) for pid in content.split())
    return found


def adopted_children() -> set[int]:
    """Return the children of the main thread: what a subreaper adopts, and what it spawned itself.

    The kernel gives orphans to the first living thread of the subreaper (find_new_reaper in kernel/exit.c), so one
    file is read instead of one per thread.
    """
    fd = _children_file(os.getpid())
    if fd < 0:
        return own_children()
    found = piece = os.pread(fd, _READ_BYTES, 0)
    while len(piece) > _SURELY_ALL_BYTES:
        piece = os.pread(fd, _READ_BYTES, len(found))
        found += piece
    return set(map(int, found.split()))


@functools.lru_cache(maxsize=1)
def _children_file(pid: int) -> int:
    """Return what lists the children of the main thread of this process, open for good: that takes ten times as long as to read it.

    Args:
        pid: Of this process. One that was forked has a file of its own.
    """
    try:
        return os.open(f"/proc/self/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1  # a kernel without CONFIG_PROC_CHILDREN


def environ_value(pid: int, name: str) -> str | None:
    """Return a variable a process was started with, or None when it has none or cannot be read."""
    wanted = os.fsencode(f"{name}=")
    for entry in (_read(f"/proc/{pid}/environ") or b"").split(b"\0"):
        if entry.startswith(wanted):
            return os.fsdecode(entry[len(wanted) :])
    return None


def no_new_privs(pid: int) -> bool:
    """Tell whether a process has given up gaining privileges, which it can never take back."""
    return b"NoNewPrivs:\t1" in (_read(f"/proc/{pid}/status") or b"")


def real_uid(pid: int) -> int | None:
    """Return whose a process is, or None when it is gone. The owner of its folder in /proc may be root instead."""
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def command_line(pid: int) -> str:
    """Return what a process runs, for people, in at most 80 characters."""
    content = _read(f"/proc/{pid}/cmdline") or _read(f"/proc/{pid}/comm") or b"?"
    return content.replace(b"\0", b" ").strip().decode("utf-8", "replace")[:80]


def open_process(stat: ProcStat) -> int | None:
    """Return a pidfd of exactly this process, or None when it is gone.

    The descriptor is opened first and the start time read again after it: only then can the pid
    not have been reused (pidfd_open(2)).
    """
    try:
        pidfd = os.pidfd_open(stat.pid)
    except OSError:
        return None
    again = read_stat(stat.pid)
    if again is None or again.start_ticks != stat.start_ticks:
        os.close(pidfd)
        return None
    return pidfd


def send_signal(pidfd: int, number: int) -> bool:
    """Signal a process through its pidfd, 0 for nothing; tell whether it is there, if only as a zombie or not ours to signal."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_own_child(pidfd: int) -> bool:
    """Tell whether a process is a child of this one that was not collected; cheaper than to read who its parent is."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def ended(pidfds: Iterable[int]) -> list[int]:
    """Return those whose process has ended, all threads of it, whether or not it was collected."""
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    return [pidfd for pidfd, _ in poll.poll(0)]


def reap_child(pid: int) -> None:
    """Collect a dead child that nobody waits for, without touching any other child's status."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return


def _read(path: str, *, whole: bool = True) -> bytes | None:
    """Return what is in a file, or None when its process is gone; not ``whole``: the first line of one that is short."""
    # Plain calls: this is read several times per command.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not whole:
            return os.read(fd, _LINE_BYTES)
        pieces = []
        while piece := os.read(fd, _READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError:  # ESRCH and friends of a process that ends while it is read
        return None
    finally:
        os.close(fd)
