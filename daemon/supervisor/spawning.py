"""Starting one child with its handover. Imports next to nothing, because it stands on the way to a first start.

Both children are spawned before the daemon imports asyncio and the rest, so that they import
while it does. ``subprocess.Popen`` with no preexec_fn, user or group uses vfork, which costs the
same beside any heap.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from agent_runner.descriptors import HANDOVER_FD, LIFE_FD, LOCK_FD, READY_FD, SECRETS_FD

if TYPE_CHECKING:
    from socket import socket


class SpawnedChild:
    """One start of a child: the process and the daemon's ends of its pipes, all non-blocking."""

    __slots__ = ("handover_fd", "nonce", "output_fd", "popen", "questions", "ready_fd", "unsent")

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        nonce: str,
        fds: tuple[int, int, int],
        payload: bytes,
        questions: socket | None = None,
    ) -> None:
        """Begin the handover; ``fds`` are the daemon's ends of handover, ready and output pipe."""
        self.popen = popen
        self.nonce = nonce
        self.questions = questions
        self.handover_fd, self.ready_fd, self.output_fd = fds
        for fd in fds:
            os.set_blocking(fd, False)
        self.unsent = memoryview(payload)
        self.send()

    @property
    def pid(self) -> int:
        """Return the child's pid, which is also the id of its session."""
        return self.popen.pid

    def send(self) -> bool:
        """Write what the handover pipe takes now; tell whether all of it has gone.

        A payload may be larger than the pipe, so the rest is sent when the child has read: see
        ``ManagedProcess.watch``. A child that has died takes nothing; its end is seen elsewhere.
        """
        while self.unsent:
            try:
                sent = os.write(self.handover_fd, self.unsent)
            except BlockingIOError:
                return False
            except BrokenPipeError:
                sent = len(self.unsent)
            self.unsent = self.unsent[sent:]
        if self.handover_fd >= 0:
            os.close(self.handover_fd)
            self.handover_fd = -1
        return True


def new_nonce() -> str:
    """Return a word that no other start has."""
    return os.urandom(8).hex()


def spawn(  # noqa: PLR0913 - all that a child gets
    argv: list[str],
    env: dict[str, str],
    payload: bytes,
    life_fd: int,
    lock_fd: int,
    *,
    asks: bool = False,
) -> SpawnedChild:
    """Start a child in a session of its own and begin its handover.

    Args:
        argv: The command; ``--instance NONCE`` is added.
        env: All of it but the numbers of the descriptors.
        payload: What goes through the handover pipe, then end of file.
        life_fd: The child's end of the life pipe; stays open here for the next child.
        lock_fd: The lock of the state directory.
        asks: Whether it gets a socket to ask for secrets; the daemon's end is ``questions``.

    Raises:
        OSError: The command cannot be started.
    """
    nonce = new_nonce()
    (handover_in, handover_out), (ready_in, ready_out), (output_in, output_out) = (
        os.pipe() for _ in range(3)
    )
    questions, asking = _socket_pair() if asks else (None, -1)
    theirs = {HANDOVER_FD: handover_in, READY_FD: ready_out, LIFE_FD: life_fd, LOCK_FD: lock_fd}
    if questions is not None:
        theirs[SECRETS_FD] = asking
    try:
        popen = _popen([*argv, "--instance", nonce], env, theirs, output_out)
    except OSError:
        _close(handover_out, ready_in, output_in)
        if questions is not None:
            questions.close()
        raise
    finally:
        _close(handover_in, ready_out, output_out, asking)
    return SpawnedChild(popen, nonce, (handover_out, ready_in, output_in), payload, questions)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _popen(
    argv: list[str], env: dict[str, str], inherited: dict[str, int], output: int
) -> subprocess.Popen[bytes]:
    """Start a command whose environment names the descriptors that it inherits."""
    return subprocess.Popen(
        argv,
        env={**env, **{name: str(fd) for name, fd in inherited.items()}},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=list(inherited.values()),
        start_new_session=True,
    )


def _socket_pair() -> tuple[socket, int]:
    """Return our end of a new connection, and the descriptor of the other."""
    import socket as sockets  # noqa: PLC0415 - the first child needs none

    ours, theirs = sockets.socketpair()
    ours.setblocking(False)
    return ours, theirs.detach()
