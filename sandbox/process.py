"""Processes of this host: learn of their end by pidfd, bound what they may use. Who spawns them is the backend."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable, Sequence

from sandbox import procfs
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.limits import DEFAULT_FILE_BYTES, DEFAULT_OPEN_FILES, Limits
from sandbox.readiness import readiness

PRLIMIT = "/usr/bin/prlimit"
SIGNAL_EXIT_BASE = 128
JOB_UMASK = 0o022
"""Of every command and source: what a file may be must not depend on the shell that started the runner."""
_LAST_SIGNAL = 64
PAUSE_S = 0.01
"""Between two looks at processes whose end cannot be waited for."""
_PR_SET_CHILD_SUBREAPER = 36

# PyDLL: calls of a microsecond; giving up the interpreter lock for each of some forty per command costs far more.
libc = ctypes.PyDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphans below this process its children, so that a tree can be found after its leader died.

    Called by every filesystem provider; idempotent. prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def apply_process_defaults() -> None:
    """Set the limits of this process to the defaults of ``Limits``, for its children to inherit for free.

    Called once by the agent-runner, before its first sandbox: a command whose limits are the
    inherited ones needs no extra program in front of it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, wanted in (
        (resource.RLIMIT_NOFILE, DEFAULT_OPEN_FILES),
        (resource.RLIMIT_FSIZE, DEFAULT_FILE_BYTES),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (_bounded(wanted, hard), hard))


def limit_options(limits: Limits, *, process_count: int = 0) -> list[str]:
    """Return the options of prlimit(1) for what differs from the limits of this process.

    Args:
        limits: What the sandbox asks for.
        process_count: Processes that count against RLIMIT_NPROC already, for a user that is shared.
    """
    options = []
    if resource.getrlimit(resource.RLIMIT_CORE)[0] != 0:
        options.append("--core=0")
    for kind, name, wanted in (
        (resource.RLIMIT_NOFILE, "nofile", limits.open_files),
        (resource.RLIMIT_FSIZE, "fsize", limits.file_bytes),
    ):
        soft, hard = resource.getrlimit(kind)
        if soft != (bounded := _bounded(wanted, hard)):
            options.append(f"--{name}={bounded}:{'unlimited' if hard < 0 else hard}")
    if limits.memory_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        options.append(f"--data={_bounded(limits.memory_bytes, hard)}")
    if limits.pids is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        options.append(f"--nproc={_bounded(limits.pids + process_count, hard)}")
    return options


def limited(argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the command line that applies these limits to a command.

    Raises:
        SandboxUnavailableError: A limit is needed and prlimit(1) is not installed.
    """
    if not options:
        return list(argv)
    if not os.access(PRLIMIT, os.X_OK):
        raise SandboxUnavailableError(f"limits need {PRLIMIT}: install util-linux")
    return [PRLIMIT, *options, "--", *argv]


def exit_code_of(returncode: int) -> tuple[int, int | None]:
    """Return (exit code, signal) of a status as subprocess reports it (negative for a signal).

    An exit code of 129 to 192 is reported as a death by signal too: bubblewrap and every shell turn
    the one into the other, and the verdict must not depend on the tier.
    """
    code = SIGNAL_EXIT_BASE - returncode if returncode < 0 else returncode
    if SIGNAL_EXIT_BASE < code <= SIGNAL_EXIT_BASE + _LAST_SIGNAL:
        return code, code - SIGNAL_EXIT_BASE
    return code, None


class ChildProcess:
    """A process that was spawned here, from its start until it is reaped. Used on its loop only."""

    def __init__(self, pid: int, loop: asyncio.AbstractEventLoop) -> None:
        """Take over a child that nobody else waits for.

        Raises:
            SandboxBrokenError: It cannot be watched; it is dead then, and collected.
        """
        self._loop = loop
        self._over = asyncio.Event()
        self._on_over: Callable[[], None] | None = None
        self._status: int | None = None
        self.has_exited = False
        """Whether the process has ended; its pid stays taken until ``reap``."""
        self.pid = pid
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(pid)
            self._readiness = readiness(loop)
            self._readiness.watch(self._pidfd, self._on_exit)
        except OSError as error:
            if self._pidfd >= 0:
                os.close(self._pidfd)
            if not isinstance(error, ProcessLookupError):  # else its pid may be somebody else's
                discard(pid)
            raise SandboxBrokenError(f"a new process cannot be watched: {error}") from error

    def when_over(self, call: Callable[[], None]) -> None:
        """Have something called once, when the process has ended or is given up, before that is told to anybody else. Called once at most."""
        if self.is_over:
            call()
        else:
            self._on_over = call

    @property
    def is_over(self) -> bool:
        """Tell whether it is known to have ended, or was given up."""
        return self._over.is_set()

    async def wait_exited(self) -> None:
        """Wait for the end of the process, not of its children, or until it is given up."""
        if not self.is_over:
            await self._over.wait()

    def is_running(self) -> bool:
        """Tell whether the process has not ended at this moment, which the loop may not have seen yet."""
        if self.has_exited:
            return False
        status = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PIDFD, self._pidfd, status) is None

    def give_up(self) -> None:
        """Wake who waits for a process that does not even die of KILL (it hangs in the kernel)."""
        # First who sees to the end, which is over mostly when those who wait for it come to look.
        call, self._on_over = self._on_over, None
        if call is not None:
            call()
        self._over.set()

    def signal(self, number: signal.Signals) -> None:
        """Signal the process alone, if it has not ended."""
        if not self.has_exited:
            procfs.send_signal(self._pidfd, number)

    def kill_group(self) -> None:
        """Kill the process and its process group, if it has not ended."""
        if not self.has_exited:
            _kill_group(self.pid)
            # No group yet, or nothing but members that changed user: the leader is still ours.
            self.signal(signal.SIGKILL)

    def reap(self) -> int:
        """Collect the exit status, negative for a signal. Called after ``wait_exited``; idempotent.

        Raises:
            SandboxBrokenError: Somebody else has collected it, so nobody knows how the process ended.
        """
        if self._status is None:
            self._status = _collect(self.pid)
            if self._status is None:
                raise SandboxBrokenError(f"the exit status of process {self.pid} was lost")
        return self._status

    def _on_exit(self) -> None:
        self._readiness.forget(self._pidfd)
        os.close(self._pidfd)
        self.has_exited = True
        self.give_up()


def discard(pid: int) -> None:
    """Kill a child that was just started, with its group, and collect it. Nobody else may wait for it."""
    _kill_group(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _collect(pid)


async def wait_gone(pidfds: Sequence[int], timeout_s: float | None) -> bool:
    """Wait until all these processes have ended, for ever if no time is given; tell whether they did in time."""
    left = set(pidfds).difference(procfs.ended(pidfds))
    if not left:
        return True
    watch = _EndWatch(left)
    try:
        async with asyncio.timeout(timeout_s):
            await watch.done.wait()
    except TimeoutError:
        return False
    finally:
        watch.leave()
    return True


class _EndWatch:
    """One at a time is waited for, and then all are looked at, at once: who else waits may close them a turn of the loop later."""

    def __init__(self, left: set[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = left
        self._watched = -1
        self._timer: asyncio.TimerHandle | None = None
        self.done = asyncio.Event()
        self._watch()

    def leave(self) -> None:
        """Wait no longer. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watched >= 0:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _watch(self) -> None:
        try:
            # Others may wait for the same one on this loop.
            self._watched = os.dup(next(iter(self._left)))
        except OSError:  # no descriptor is left
            self._timer = self._loop.call_later(PAUSE_S, self._look)
        else:
            self._loop.add_reader(self._watched, self._look)

    def _look(self) -> None:
        self.leave()
        self._left.difference_update(procfs.ended(self._left))
        if self._left:
            self._watch()
        else:
            self.done.set()


async def kill_all(stats: Sequence[procfs.ProcStat], timeout_s: float) -> bool:
    """Kill exactly these processes, each checked by its start time; tell whether they are gone."""
    pidfds = [fd for stat in stats if (fd := procfs.open_process(stat)) is not None]
    try:
        for pidfd in pidfds:
            procfs.send_signal(pidfd, signal.SIGKILL)
        return await wait_gone(pidfds, timeout_s)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _kill_group(pid: int) -> None:
    """Kill the group that a process of ours leads, which is not reaped: its pid is nobody else's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _collect(pid: int) -> int | None:
    """Wait for a child; return its status, negative for a signal, or None when somebody else has it."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED)
    except ChildProcessError:
        return None
    if found is None:  # only with WNOHANG
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _bounded(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
