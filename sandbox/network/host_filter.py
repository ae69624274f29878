"""The agent-runner's end of a proxy process: starts it, is told of refusals, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.errors import SandboxBrokenError
from sandbox.network.control import CONTROL_FD, FAILED, MAX_MESSAGE_BYTES, READY

START_S = 20.0
"""Python alone takes 15 ms; a loaded host, much more."""
_PAUSE_S = 0.05
_DRAINED_LINES = 1000
_PACKAGES = str(Path(__file__).resolve().parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    # asyncio does without, and OpenSSL would cost several megabytes and a fifth of the start.
    " sys.modules['ssl'] = None;"
    " from sandbox.network.process import main; main()"
)


class HostFilter:
    """The proxy of one command. ``serve`` once, ``close`` always. Used on one event loop."""

    def __init__(self, hosts: Sequence[str], uid: int | None, env: dict[str, str]) -> None:
        """Start the process, which prepares while the sandbox is made.

        Called on the thread of the loop, with whose end the process ends.

        Args:
            hosts: The list of the job.
            uid: User to become, if this process is root's.
            env: Marks the process for those who look for leftovers.

        Raises:
            OSError: The host has no process, descriptor or memory for it now.
        """
        self._hosts = list(hosts)
        self._uid = uid
        self._loop = asyncio.get_running_loop()
        self._on_line: Callable[[bytes], bool] | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._resuming: asyncio.TimerHandle | None = None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._pid: int | None = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGES],
                    env,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL_FD),
                    ],
                    # No signal of a terminal reaches it: it ends when it is told to.
                    setpgroup=0,
                    setsigmask=(),
                )
            except BaseException:
                self._control.close()
                raise
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._read)

    async def serve(self, pid: int, pidfd: int, on_line: Callable[[bytes], bool]) -> None:
        """Have it listen inside. When this returns, connections are served.

        Args:
            pid: A process in the network namespace, which does not end or go on before this returns.
            pidfd: The same process.
            on_line: Called with a line for each refusal, before the client gets to know of it; tells whether there is
                room for more. If not, the proxy waits.

        Raises:
            SandboxBrokenError: It cannot.
        """
        self._on_line = on_line
        order = json.dumps({"hosts": self._hosts, "pid": pid, "uid": self._uid}).encode()
        try:
            socket.send_fds(self._control, [order], [pidfd])
            async with asyncio.timeout(START_S):
                await self._ready
        except OSError as error:
            raise SandboxBrokenError(f"no proxy for the list of hosts: {error}") from error

    def drain(self) -> None:
        """Take what was told so far. Called when the command has ended; what it left may go on to cause more."""
        for _ in range(_DRAINED_LINES):
            if self._control.fileno() < 0 or (message := self._receive()) is None:
                return
            self._take(message)

    async def close(self) -> None:
        """End the process and collect it. Idempotent."""
        if (pid := self._kill()) is not None:
            await asyncio.to_thread(_collect, pid)

    def abandon(self) -> None:
        """Do what ``close`` does, at once; it takes some milliseconds. Idempotent."""
        if (pid := self._kill()) is not None:
            _collect(pid)

    def _kill(self) -> int | None:
        self._stop_reading()
        self._fail("closed")
        self._control.close()
        pid, self._pid = self._pid, None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # not reaped yet: the pid is nobody else's
        return pid

    def _read(self) -> None:
        message = self._receive()
        if message is not None and not self._take(message):
            self._loop.remove_reader(self._control)
            self._resuming = self._loop.call_later(
                _PAUSE_S, self._loop.add_reader, self._control, self._read
            )

    def _receive(self) -> bytes | None:
        try:
            message = self._control.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            message = b""
        if message:
            return message
        self._stop_reading()
        self._fail("the process has ended")
        return None

    def _take(self, message: bytes) -> bool:
        """Act on a message; tell whether there is room for more."""
        if message == READY:
            if not self._ready.done():
                self._ready.set_result(None)
        elif message.startswith(FAILED):
            self._fail(message.removeprefix(FAILED).decode("utf-8", "replace"))
        elif self._on_line is not None:
            return self._on_line(b"runner: network " + message + b"\n")
        return True

    def _fail(self, problem: str) -> None:
        if not self._ready.done():
            self._ready.set_exception(
                SandboxBrokenError(f"no proxy for the list of hosts: {problem}")
            )
            # Nobody may be waiting for it any more.
            self._ready.exception()

    def _stop_reading(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)


def _collect(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
