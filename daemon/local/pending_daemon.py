"""A daemon that was spawned and waits for its launch document. Imports next to nothing: it is the first thing of a start.

``runner local start`` spawns it before it loads the command that knows what to start, so that the daemon's interpreter
and the job server's come up meanwhile, on another processor. One that is not used after all is ended again: until it has its
document it knows nothing, holds nothing, and has opened nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from typing import Self

from agent_runner import document_channel
from daemon.local.first_spawn import AHEAD, CALLED_OFF_BY
from daemon.supervisor.child_process import ChildProcess, spawn_process
from daemon.supervisor.spawning import new_nonce

END_BOUND_S = 5.0
_MAX_SAID_BYTES = 64 << 10


def daemon_argv(launch_fd: int, nonce: str, *flags: str) -> list[str]:
    """Return the command of a daemon. ``-P``: a folder named daemon in the caller's folder is not ours."""
    arguments = [*flags, "--instance", nonce, "--launch-fd", str(launch_fd)]
    return [sys.executable, "-P", "-m", "daemon", *arguments]


class PendingDaemon:
    """The process, our end of its launch channel, and what it has said before it had a log."""

    def __init__(self, process: ChildProcess, launch: socket.socket, said_fd: int) -> None:
        self.process = process
        self._launch = launch
        self._said_fd = said_fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_exc: object) -> None:
        """A daemon that gets no document ends by itself; it is not left behind as a zombie."""
        if exc_type is not None:
            self.abandon()

    def abandon(self) -> None:
        """Let it end by giving it nothing, and wait for that; nothing happens if that was done before."""
        self._launch.close()
        self.wait_end(END_BOUND_S)

    def call_off(self) -> None:
        """Tell it to stop at once."""
        for number in CALLED_OFF_BY:
            self.process.send_signal(number)

    def wait_end(self, bound_s: float) -> None:
        """Wait for its end and kill it after the bound; its children notice that by themselves."""
        self.process.end(bound_s)

    def send(self, document: bytes, *, lock_fd: int, progress_fd: int, log_fd: int) -> None:
        """Give it the document and what it holds open; one that has died already is told by its progress pipe."""
        with self._launch, contextlib.suppress(ConnectionError):
            sent = document_channel.begin(self._launch, document, [lock_fd, progress_fd, log_fd])
            self._launch.sendall(memoryview(document)[sent:])

    def said(self) -> bytes:
        """Return what it printed before it had its log: why the interpreter, or a module of ours, cannot be loaded."""
        return os.pread(self._said_fd, _MAX_SAID_BYTES, 0)


def spawn_pending(env: Mapping[str, str], *flags: str, output: int | None = None) -> PendingDaemon:
    """Start a daemon in a session of its own.

    Args:
        env: All of its environment.
        flags: More of its arguments.
        output: Where it prints to until it has its log; None keeps that for ``said``.

    Raises:
        OSError: It cannot be started.
    """
    launch, launched = socket.socketpair()
    said_fd = os.memfd_create("runner-daemon-output") if output is None else output
    try:
        argv = daemon_argv(launched.fileno(), new_nonce(), *flags)
        process = spawn_process(argv, env, kept=[launched.fileno()], output=said_fd)
    except OSError:
        launch.close()
        raise
    finally:
        launched.close()
    return PendingDaemon(process, launch, said_fd)


class _Ahead:
    """The daemon that this process has spawned ahead, and the environment that it has."""

    def __init__(self) -> None:
        self.daemon: PendingDaemon | None = None
        self.env: dict[str, str] = {}

    def abandon(self) -> None:
        daemon, self.daemon = self.daemon, None
        if daemon is not None:
            daemon.abandon()


_ahead = _Ahead()


def spawn_ahead(env: dict[str, str]) -> None:
    """Spawn a daemon with what it may have of the environment; called once, before the command is loaded.

    It is a guess, of which nothing is left at the end of this process if it was wrong.
    """
    if not _streams_are_open():
        return
    with contextlib.suppress(OSError):  # whoever starts it for good says why it cannot be
        _ahead.daemon = spawn_pending(env, AHEAD)
        _ahead.env = env
        atexit.register(_ahead.abandon)


def take_ahead(env: Mapping[str, str]) -> PendingDaemon | None:
    """Return the daemon that was spawned ahead, if there is one and it has this environment; it is the caller's then."""
    daemon = _ahead.daemon
    if daemon is None:
        return None
    if _ahead.env != env or daemon.process.poll() is not None:
        _ahead.abandon()
        return None
    _ahead.daemon = None
    return daemon


def _streams_are_open() -> bool:
    """Tell whether the standard streams are open: a new descriptor would become one of them."""
    try:
        return all(os.fstat(fd) for fd in range(3))
    except OSError:
        return False
