"""What bubblewrap tells about itself on ``--json-status-fd``.

It writes ``{"child-pid": N, …}`` when the namespaces exist and ``{"exit-code": N}`` when the command has
ended, the latter only if the command was reached at all: without it a failure was the sandbox's, not the
command's. The descriptor stays open to its end, because a closed pipe kills bubblewrap half way in
its set-up and leaves a child that waits for ever. It is read when somebody asks: to be woken for
each of three lines would cost a short command more than all that is made of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re

_FACT = re.compile(rb'"(child-pid|exit-code)"\s*:\s*(\d+)')
"""What is asked of a line; the rest of it names the namespaces."""


class BubblewrapStatus:
    """The status pipe of one bubblewrap. Used on its loop only."""

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        self._buffer = b""
        self._open = True
        self._watched = False
        self._reported = asyncio.Event()
        self.child_pid: int | None = None
        """The init of the PID namespace, as the host numbers it."""
        self.exit_code: int | None = None
        """What the command ended with; 128 + N for a signal. None: it was never reached."""
        os.set_blocking(fd, False)

    @property
    def reported(self) -> bool:
        """Tell whether the namespaces' init is known."""
        return self.child_pid is not None

    async def wait_reported(self, timeout_s: float) -> None:
        """Wait until the init is known or bubblewrap has nothing more to say, but not for long."""
        self.drain()
        if self._open and not self._watched:
            self._watched = True
            self._loop.add_reader(self._fd, self.drain)
        with contextlib.suppress(TimeoutError):
            # Not wait_for(), which forgets a cancellation that comes with the report (Python 3.11).
            async with asyncio.timeout(timeout_s):
                await self._reported.wait()

    def drain(self) -> None:
        """Read what there is. Called whenever somebody wants to know, and by the loop once somebody has waited."""
        while self._open:
            try:
                data = os.read(self._fd, 4096)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            self._receive(data)

    def close(self) -> None:
        """Stop reading. Idempotent."""
        if self._open:
            self._open = False
            if self._watched:
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._reported.set()

    def _receive(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            for name, number in _FACT.findall(line):
                if name == b"exit-code":
                    self.exit_code = int(number)
                else:
                    self.child_pid = int(number)
                    self._reported.set()
