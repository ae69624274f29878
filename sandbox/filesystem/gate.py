"""What a command waits for before its first instruction: bubblewrap holds it until something outside is ready.

A proxy for a list of hosts has to listen inside first, so that no program of the job can take its place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sandbox.base import Network
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.terms import Terms

if TYPE_CHECKING:  # loaded for the first command that has a list
    from sandbox.network.host_filter import HostFilter

_STATUS_S = 20.0


class Gate:
    """The gate of one command, and the proxy behind it."""

    def __init__(self, host_filter: HostFilter) -> None:
        """Close the gate, and keep the proxy."""
        self._filter = host_filter
        self.closed_fd, self._open_fd = os.pipe()
        """What bubblewrap reads from before it goes on."""

    async def open(self, status: BubblewrapStatus, on_line: Callable[[bytes], bool]) -> None:
        """Let the command go once connections are served. Called once.

        Args:
            status: Knows the first process of the command's namespaces.
            on_line: Takes a line for each refusal; tells whether there is room for more.

        Raises:
            SandboxBrokenError: There is no proxy; the command must not go on.
        """
        os.close(self.closed_fd)
        self.closed_fd = -1
        await status.wait_reported(_STATUS_S)
        pid = status.child_pid
        if pid is None:  # it says itself why it ended
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            await self._filter.serve(pid, pidfd, on_line)
        finally:
            os.close(pidfd)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._open_fd, b"x")

    def drain(self) -> None:
        """Take the lines that came so far. Called when the command has ended, before its output does."""
        self._filter.drain()

    async def close(self) -> None:
        """End the proxy. Called once the command is dead: one that still waits would read the end, and go on."""
        self._close_fds()
        await self._filter.close()

    def abandon(self) -> None:
        """End the proxy at once, for a command that was not started after all."""
        self._close_fds()
        self._filter.abandon()

    def _close_fds(self) -> None:
        for fd in (self.closed_fd, self._open_fd):
            if fd >= 0:
                os.close(fd)
        self.closed_fd = self._open_fd = -1


def gate_for(terms: Terms, uid: int | None, env: Mapping[str, str]) -> Gate | None:
    """Return the gate of a command, whose proxy prepares while bubblewrap does; None if it waits for nothing.

    Args:
        terms: What the command may reach.
        uid: Its user, if this process is root's.
        env: Its environment, for the marks by which leftovers are found.

    Raises:
        OSError: The host has no process, descriptor or memory for it now.
    """
    if terms.network is not Network.HOSTS:
        return None
    from sandbox.network.host_filter import HostFilter  # noqa: PLC0415

    marks = {name: env[name] for name in (OWNER_MARKER, SANDBOX_MARKER) if name in env}
    return Gate(HostFilter(terms.hosts, uid, marks))
