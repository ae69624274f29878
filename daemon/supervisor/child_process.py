"""A process of our own, from its spawn until it is reaped. Imports next to nothing: it stands on the way to a first start.

``os.posix_spawn`` instead of ``subprocess``: it takes a fifth of the time to import, and it uses vfork too, which costs
the same beside any heap.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping, Sequence

_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""What Python ignores; a new program begins with what everybody expects."""
_FIRST_OWN_FD = 3


class ChildProcess:
    """One spawned process. Its pid is nobody else's as long as it is not reaped, and only this object reaps it."""

    __slots__ = ("pid", "returncode")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """How it ended, a signal as a negative number; None until that is known."""

    def poll(self) -> int | None:
        """Reap it if it has ended; return how, or None while it lives."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.returncode = 0  # as subprocess has it: SIGCHLD is ignored, so nobody knows
            else:
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, bound_s: float | None = None) -> int:
        """Wait for its end, reap it, and return how it ended.

        Raises:
            TimeoutError: It lives after ``bound_s``.
        """
        code = self.poll()
        if code is not None:
            return code
        poll, pidfd = select.poll(), os.pidfd_open(self.pid)
        try:
            poll.register(pidfd, select.POLLIN)
            poll.poll(None if bound_s is None else bound_s * 1000)
        finally:
            os.close(pidfd)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"pid {self.pid} lives after {bound_s} s")
        return code

    def send_signal(self, number: int) -> None:
        """Signal it; one that has ended is left alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once; ``wait`` reaps it."""
        self.send_signal(signal.SIGKILL)

    def end(self, bound_s: float) -> None:
        """Wait for its end, and make it end after the bound."""
        try:
            self.wait(bound_s)
        except TimeoutError:
            self.kill()
            self.wait()


def spawn_process(
    argv: list[str], env: Mapping[str, str], *, kept: Sequence[int], output: int
) -> ChildProcess:
    """Start a command in a session of its own, with no standard input and no signal blocked.

    Args:
        argv: The command; a path, nothing is searched.
        env: All of its environment.
        kept: The descriptors that it inherits, under their numbers; no other one is.
        output: Where its standard output and standard error go.

    Raises:
        OSError: It cannot be started.
    """
    _keep_strays()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
        # Onto itself: the C library takes the mark off that closes it on exec.
        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in kept),
    ]
    pid = os.posix_spawn(
        argv[0],
        argv,
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_RESTORED,
    )
    return ChildProcess(pid)


def _keep_strays() -> None:
    """Keep what whoever started us has left open from being passed on: Python itself opens nothing of the kind."""
    with os.scandir("/proc/self/fd") as entries:
        for fd in [int(entry.name) for entry in entries]:
            # Other threads close some meanwhile, and so does the listing its own.
            with contextlib.suppress(OSError):
                if fd >= _FIRST_OWN_FD and os.get_inheritable(fd):
                    os.set_inheritable(fd, False)
