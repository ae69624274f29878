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
        env: The whole environment but for the numbers of the descriptors.
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
    ours, theirs = (handover_out, ready_in, output_in), (handover_in, ready_out, life_fd, lock_fd)
    names = (HANDOVER_FD, READY_FD, LIFE_FD, LOCK_FD)
    numbers = {name: str(fd) for name, fd in zip(names, theirs, strict=True)}
    inherited = list(theirs)
    questions, asking = _socket_pair() if asks else (None, None)
    if asking is not None:
        inherited.append(asking.fileno())
        numbers[SECRETS_FD] = str(asking.fileno())
    try:
        popen = subprocess.Popen(
            [*argv, "--instance", nonce],
            env={**env, **numbers},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output_out,
            stderr=output_out,
            pass_fds=inherited,
            start_new_session=True,
        )
    except OSError:
        for fd in ours:
            os.close(fd)
        if questions is not None:
            questions.close()
        raise
    finally:
        for fd in (handover_in, ready_out, output_out):
            os.close(fd)
        if asking is not None:
            asking.close()
    return SpawnedChild(popen, nonce, ours, payload, questions)


def _socket_pair() -> tuple[socket, socket]:
    import socket as sockets  # noqa: PLC0415 - the first child needs none

    ours, theirs = sockets.socketpair()
    ours.setblocking(False)
    return ours, theirs
