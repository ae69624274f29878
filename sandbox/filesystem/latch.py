"""What a parked command waits at: the trampoline once more, inside the finished walls, as the program that bubblewrap begins.

It is given two lists of system calls. The first one is known when the slot is built: say that the walls are up, wait for a byte,
take the second list, begin again. The second one is the command, written when there is one. So nothing of a job is in a parked slot, no interpreter starts
on the way of a command, and what is executed in the end is what a cold start would have executed.
"""

from __future__ import annotations

import contextlib
import os
import socket

from sandbox.filesystem.call_list import CallList, Step
from sandbox.filesystem.trampoline import Trampoline, memory_file

_BYTE = b"x"


class Latch:
    """The latch of one parked command: closed when it is made, lifted once at most.

    Raises:
        OSError: The host has no descriptor or memory for it now.
    """

    def __init__(self, trampoline: Trampoline) -> None:
        """Make the line and both lists; the second says "leave", for who reads the end of the line instead of a byte."""
        self._trampoline = trampoline
        with contextlib.ExitStack() as undo:
            self._list_fd = memory_file("calls", _leave(trampoline))
            undo.callback(os.close, self._list_fd)
            self._wait_fd, self._go_fd = _line()
            undo.callback(os.close, self._wait_fd)
            undo.callback(os.close, self._go_fd)
            self.stdin_fd = memory_file("latch", self._waiting())
            """What the program that waits has to have as its stdin."""
            undo.pop_all()
        self._is_waiting = False

    @property
    def program(self) -> str:
        """Return the path of the program that waits, for who has ``kept``."""
        return f"/proc/self/fd/{self._trampoline.fd}"

    @property
    def kept(self) -> tuple[int, ...]:
        """Return the descriptors that the program needs beside its stdin, under these numbers."""
        return (self._list_fd, self._wait_fd, self._trampoline.fd)

    def spawned(self) -> None:
        """Give back what only the program needs, which has its own by now. Called once."""
        os.close(self.stdin_fd)
        os.close(self._wait_fd)
        self.stdin_fd = self._wait_fd = -1

    def is_waiting(self) -> bool:
        """Tell whether the program has begun to wait, so that nothing of the host is looked up by its name any more."""
        if not self._is_waiting:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self._is_waiting = os.read(self._go_fd, 1) == _BYTE
        return self._is_waiting

    def lift(self, calls: bytes) -> None:
        """Let the program go through a list of calls. Called once at most, after ``spawned``.

        Raises:
            OSError: It cannot be told: it has ended, or the host has no memory for the list.
        """
        view = memoryview(calls)
        offset = 0
        while offset < len(view):
            offset += os.pwrite(self._list_fd, view[offset:], offset)
        os.ftruncate(self._list_fd, len(view))
        os.write(self._go_fd, _BYTE)

    def close(self) -> None:
        """Give everything back. A program that still waits leaves. Idempotent."""
        for fd in (self._list_fd, self._wait_fd, self._go_fd, self.stdin_fd):
            if fd >= 0:
                os.close(fd)
        self._list_fd = self._wait_fd = self._go_fd = self.stdin_fd = -1

    def _waiting(self) -> bytes:
        calls = CallList(self._trampoline.machine)
        byte = calls.data(_BYTE)
        calls.must(Step.RIGHTS, "write", self._wait_fd, byte, 1)
        calls.must(Step.RIGHTS, "read", self._wait_fd, byte, 1)
        calls.replace_stdin(self._list_fd)
        calls.begin_again(self._trampoline.fd)
        return calls.finish()


def _line() -> tuple[int, int]:
    """Return both ends of a line; the second one, ours, never blocks."""
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    return theirs.detach(), ours.detach()


def _leave(trampoline: Trampoline) -> bytes:
    calls = CallList(trampoline.machine)
    calls.must(Step.PROGRAM, "exit_group", 0)
    return calls.finish()
