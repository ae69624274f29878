"""Starting one child with its handover. Imports next to nothing, because it stands on the way to a first start.

A child may be started before it is known what it is to do: it imports what it needs, and waits for its handover.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from agent_runner import document_channel
from agent_runner.descriptors import HANDOVER_FD, LIFE_FD, READY_FD, SECRETS_FD
from daemon.supervisor.child_process import ChildProcess, spawn_process


class SpawnedChild:
    """One start of a child: the process and the daemon's ends of its pipes, all non-blocking."""

    __slots__ = ("handover", "nonce", "output_fd", "process", "questions", "ready_fd", "unsent")

    def __init__(
        self,
        process: ChildProcess,
        nonce: str,
        handover: socket.socket,
        fds: tuple[int, int],
        questions: socket.socket | None = None,
    ) -> None:
        """Take the daemon's ends; ``fds`` are those of ready and output pipe."""
        self.process = process
        self.nonce = nonce
        self.questions = questions
        self.handover: socket.socket | None = handover
        """None when all has been handed over."""
        self.ready_fd, self.output_fd = fds
        self.unsent = memoryview(b"")
        handover.setblocking(False)
        for fd in fds:
            os.set_blocking(fd, False)

    @property
    def pid(self) -> int:
        """Return the child's pid, which is also the id of its session."""
        return self.process.pid

    def hand_over(self, payload: bytes, lock_fd: int) -> None:
        """Begin the handover; called once.

        Raises:
            OSError: The lock cannot be sent; the child is ended.
        """
        if self.handover is None:
            return
        try:
            sent = document_channel.begin(self.handover, payload, [lock_fd])
        except ConnectionError:
            sent = len(payload)
        except OSError:
            self.give_up()
            raise
        self.unsent = memoryview(payload)[sent:]
        self.send()

    def send(self) -> bool:
        """Write what the socket takes now; tell whether all of it has gone.

        A payload may be larger than the socket's buffer, so the rest is sent when the child has read: see
        ``ChildWatch``. A child that has died takes nothing; its end is seen elsewhere.
        """
        while self.unsent and self.handover is not None:
            try:
                sent = self.handover.send(self.unsent)
            except BlockingIOError:
                return False
            except ConnectionError:
                sent = len(self.unsent)
            self.unsent = self.unsent[sent:]
        self._close_handover()
        return True

    def give_up(self) -> None:
        """End a child that was started for nothing, and reap it."""
        self.process.end(0)
        self._close_handover()
        if self.questions is not None:
            self.questions.close()
        for fd in (self.ready_fd, self.output_fd):
            os.close(fd)

    def _close_handover(self) -> None:
        if self.handover is not None:
            self.handover.close()
            self.handover = None


def new_nonce() -> str:
    """Return a word that no other start has."""
    return os.urandom(8).hex()


def spawn(
    argv: list[str], env: Mapping[str, str], life_fd: int, *, asks: bool = False
) -> SpawnedChild:
    """Start a child in a session of its own; it waits for ``hand_over``.

    Args:
        argv: The command; ``--instance NONCE`` is added.
        env: All of it but the numbers of the descriptors.
        life_fd: The child's end of the life pipe; stays open here for the next child.
        asks: Whether it gets a socket to ask for secrets; the daemon's end is ``questions``.

    Raises:
        OSError: The command cannot be started.
    """
    nonce = new_nonce()
    handover, handed = socket.socketpair()
    (ready_in, ready_out), (output_in, output_out) = os.pipe(), os.pipe()
    theirs = {HANDOVER_FD: handed.fileno(), READY_FD: ready_out, LIFE_FD: life_fd}
    questions, asking = socket.socketpair() if asks else (None, None)
    if asking is not None:
        theirs[SECRETS_FD] = asking.fileno()
    numbers = {name: str(fd) for name, fd in theirs.items()}
    command = [*argv, "--instance", nonce]
    try:
        process = spawn_process(
            command, {**env, **numbers}, kept=[*theirs.values()], output=output_out
        )
    except OSError:
        _close(handover, ready_in, output_in, questions)
        raise
    finally:
        _close(handed, ready_out, output_out, asking)
    if questions is not None:
        questions.setblocking(False)
    return SpawnedChild(process, nonce, handover, (ready_in, output_in), questions)


def _close(*ends: socket.socket | int | None) -> None:
    for end in ends:
        if isinstance(end, int):
            os.close(end)
        elif end is not None:
            end.close()
