"""Spawns the commands of a tier: the first one by vfork, those after it through a process that does nothing else.

vfork keeps the event loop waiting until the new process has got a processor and become the trampoline, 0.8 ms a command where
eight end at once, and the C library sets the disposition of every signal first: 0.4 ms of CPU time a command in all. So there
is a process of a few pages, the *helper*: the trampoline with a list of calls that has no end. For each command it receives a
list with its descriptors, forks, tells the pid, forgets the list, and waits for the next one. Its child goes through the list.

Commands are children of this process all the same (``CLONE_PARENT``): they are waited for, and die with it, as if it had
spawned them. The helper has no environment and no descriptor but its end of the line; nobody but root looks into it; it dies
with the thread that began it. It has its own list at two addresses: where the trampoline has mapped it, which is where
those of commands come later, and where its first steps map it again.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import logging
import os
import signal
import socket
import struct
import threading
from collections.abc import Sequence
from functools import lru_cache

from sandbox.filesystem.call_list import BASE, CallList, Step
from sandbox.filesystem.system_calls import Machine
from sandbox.filesystem.trampoline import Trampoline
from sandbox.process import discard
from sandbox.process_tree import own_helpers

MOST_BYTES = 96 << 10
"""Of a list; the buffer of a socket holds twice as much wherever nobody has made it smaller. Longer ones are spawned by vfork."""
MOST_FDS = 32
_OWN = 0x20000000
"""Where the helper maps its own list."""
_OWN_BYTES = 1 << 12
_ROOM_BYTES = 128 << 10
_LIST_FD, _FIRST_FD = 3, 4
"""In the helper: its own list, and the first descriptor of a command."""
_ANSWER_S = 10
_MOST_DEATHS, _GOOD_COMMANDS = 3, 100
"""After as many helpers in a row that died before they had spawned a hundred commands, all are spawned by vfork."""
_IOVEC = struct.Struct("<QQ")
_MSGHDR = struct.Struct("<7Q")
_PID = struct.Struct("<q")
_TIMEVAL = struct.Struct("@ll")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_READ_WRITE, _PRIVATE_FIXED, _ANONYMOUS = 3, 0x12, 0x20
_CLONE_PARENT, _CLONE_PARENT_SETTID = 0x8000, 0x100000
_MSG_CMSG_CLOEXEC = 0x40000000
_LARGEST_FD = (1 << 32) - 1
_NO_FD = (1 << 64) - 1

logger = logging.getLogger(__name__)


class Spawner:
    """One per tier. Used by launchers, once per command."""

    def __init__(self, trampoline: Trampoline) -> None:
        """Take over a trampoline; no helper is begun before the second command, so that one command alone is no slower."""
        self.trampoline = trampoline
        self._helper: _Helper | None = None
        self._has_spawned = False
        self._deaths = 0

    def spawn(self, calls: CallList, *, output_fd: int, kept: Sequence[int] = ()) -> int:
        """Start a process that goes through a list of calls; return its pid. See ``Trampoline.spawn``.

        Raises:
            OSError: The host has no process, descriptor or memory for it now.
        """
        helper = self._helper_of_thread() if self._has_spawned else None
        self._has_spawned = True
        if helper is not None and len(kept) < MOST_FDS:
            try:
                pid = helper.spawn(calls, output_fd, kept)
            except _HelperGoneError:
                self._bury(helper)
            except BaseException:  # a later answer would be taken for that of the next command
                self._bury(helper)
                raise
            else:
                if pid:
                    return pid
        # The error that comes of this, if there is one, is the kernel's own.
        return self.trampoline.spawn(calls.finish(), output_fd=output_fd, kept=kept)

    def close(self) -> None:
        """End the helper and close the trampoline. Idempotent."""
        if self._helper is not None:
            self._helper.end()
            self._helper = None
        self.trampoline.close()

    @property
    def machine(self) -> Machine:
        """Return the machine whose calls the lists have."""
        return self.trampoline.machine

    def _helper_of_thread(self) -> _Helper | None:
        """Return the helper, begun if need be; None in another thread than its own, with which commands would die, or where there can be none."""
        if self._helper is None and self._deaths < _MOST_DEATHS:
            with contextlib.suppress(OSError):  # what vfork says of it is told, if it fails too
                self._helper = _Helper(self.trampoline)
        helper = self._helper
        return helper if helper is not None and helper.thread == threading.get_ident() else None

    def _bury(self, helper: _Helper) -> None:
        self._deaths = 1 + (self._deaths if helper.commands < _GOOD_COMMANDS else 0)
        self._helper = None
        helper.end()
        logger.warning(
            "The process that spawns commands has ended; another one takes its place",
            extra={"action": "spawner_died", "deaths": self._deaths},
        )


class _HelperGoneError(Exception):
    """It has died, and has not heard of the command."""


class _Helper:
    """The process, from its start to its end."""

    def __init__(self, trampoline: Trampoline) -> None:
        """Begin it.

        Raises:
            OSError: The host has no process, descriptor or memory for it now.
        """
        self.thread = threading.get_ident()
        self.commands = 0
        """How many it has spawned."""
        self._machine = trampoline.machine
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(self._socket.close)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_ANSWER_S, 0)
            )
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            undo.callback(os.close, null)
            calls = _list_of_helper(trampoline.machine, theirs.fileno())
            self.pid = trampoline.spawn(calls, output_fd=null, kept=(theirs.fileno(),))
            undo.pop_all()
            os.close(null)
        own_helpers.add(self.pid)

    def spawn(self, calls: CallList, output_fd: int, kept: Sequence[int]) -> int:
        """Have it spawn a command; return the pid, or 0 if it could not, or was not even asked.

        Raises:
            _HelperGoneError: It has died, and has not heard of it.
            OSError: It died or fell silent when it had heard of it.
        """
        text = calls.finish(_first_steps(self._machine, tuple(kept)))
        if len(text) > MOST_BYTES:
            return 0
        fds = array.array("i", [output_fd, *kept])
        try:
            self._socket.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except ConnectionError as error:
            raise _HelperGoneError from error
        except OSError:  # too many descriptors on their way, or no memory: nothing was sent
            return 0
        try:
            answer = self._socket.recv(_PID.size)
        except ConnectionResetError as error:
            # It died with something unread (unix_release_sock in net/unix/af_unix.c).
            raise _HelperGoneError from error
        except BlockingIOError as error:
            raise TimeoutError("the process that spawns commands does not answer") from error
        if len(answer) != _PID.size:
            raise ConnectionAbortedError("the process that spawns commands has died")
        self.commands += 1
        return int(_PID.unpack(answer)[0])

    def end(self) -> None:
        """Kill it, if it lives, and collect it, and a command that it has spawned for nobody."""
        try:
            os.kill(self.pid, signal.SIGKILL)  # our child, which nobody else collects
            os.waitpid(self.pid, 0)
        finally:
            own_helpers.discard(self.pid)
            with self._socket, contextlib.suppress(OSError):
                late = self._socket.recv(_PID.size, socket.MSG_DONTWAIT)
                if len(late) == _PID.size and (pid := _PID.unpack(late)[0]):
                    discard(pid)


@lru_cache(maxsize=64)  # most commands keep as many, in the same few places
def _first_steps(machine: Machine, kept: tuple[int, ...]) -> bytes:
    """Return what a command does before its list: have a session of its own, nothing of the helper's, and its descriptors under their numbers."""
    calls = CallList(machine)
    calls.must(Step.RIGHTS, "setsid")
    for own in (0, 1, 2):  # the line is where its list puts its stdin, sooner or later
        calls.must(Step.RIGHTS, "dup3", _FIRST_FD, own, 0)
    calls.must(Step.RIGHTS, "close", _LIST_FD)
    first = _FIRST_FD + 1
    end = first + len(kept)
    given: Sequence[int] = range(first, end)
    if not set(given).isdisjoint(kept):  # one would be put where another one still is
        unused = (fd for fd in itertools.count(end) if fd not in kept)
        above = list(itertools.islice(unused, len(kept)))
        for fd, place in zip(given, above, strict=True):
            calls.must(Step.RIGHTS, "dup3", fd, place, os.O_CLOEXEC)
        given = above
    for fd, wanted in zip(given, kept, strict=True):
        calls.must(Step.RIGHTS, "dup3", fd, wanted, 0)
    return calls.steps


def _list_of_helper(machine: Machine, line: int) -> bytes:
    """Return what the helper does, whose end of the line has this number at first, and 0 later."""
    calls = CallList(machine, _OWN)
    waits, leaves = calls.part(), calls.part()
    control_bytes = socket.CMSG_SPACE(MOST_FDS * 4)
    room = calls.data(_IOVEC.pack(BASE, _ROOM_BYTES))
    control = calls.data(bytes(control_bytes))
    message = calls.data(_MSGHDR.pack(0, 0, room, 1, control, control_bytes, 0) + _PID.pack(0))
    pid = message + _MSGHDR.size

    calls.must(Step.RIGHTS, "prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    calls.must(Step.RIGHTS, "mmap", _OWN, _OWN_BYTES, _READ_WRITE, _PRIVATE_FIXED, 0, 0)
    calls.must(Step.RIGHTS, "dup3", 0, line + 1, os.O_CLOEXEC)
    calls.must(Step.RIGHTS, "dup3", line, 0, os.O_CLOEXEC)
    calls.must(Step.RIGHTS, "dup3", line + 1, _LIST_FD, os.O_CLOEXEC)
    calls.must(Step.RIGHTS, "close_range", _FIRST_FD, _LARGEST_FD, 0)
    calls.branch(waits, "prctl", _PR_SET_DUMPABLE, 0)

    calls.begin_part(waits)
    # In place of what was there: the list of the command before.
    kind = _PRIVATE_FIXED | _ANONYMOUS
    calls.must(Step.RIGHTS, "mmap", BASE, _ROOM_BYTES, _READ_WRITE, kind, _NO_FD, 0)
    # The kernel writes into the head of a message how much there was.
    fresh = (message, _MSGHDR.size + _PID.size, message - _OWN)
    calls.must(Step.RIGHTS, "pread64", _LIST_FD, *fresh)
    calls.branch(leaves, "recvmsg", 0, message, _MSG_CMSG_CLOEXEC)
    flags = _CLONE_PARENT | _CLONE_PARENT_SETTID
    calls.branch(BASE, "clone", flags, 0, pid, must=False)
    calls.must(Step.RIGHTS, "write", 0, pid, _PID.size)
    calls.branch(waits, "close_range", _FIRST_FD, _LARGEST_FD, 0)

    calls.begin_part(leaves)
    calls.must(Step.PROGRAM, "exit_group", 0)
    return calls.finish()
