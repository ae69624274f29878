"""What a command waits for before its first instruction: bubblewrap holds it until something outside is ready.

A proxy for a list of hosts has to listen inside first, so that no program of the job can take its place; pasta has to
have connected the namespace, so that the first program that wants the network finds it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Protocol

from sandbox.base import Network
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER
from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.terms import Terms
from sandbox.network.control import PROXY_ENV

_STATUS_S = 20.0


class Peer(Protocol):
    """What has to be ready outside: a process of ours that serves one command."""

    async def serve(self, pid: int, pidfd: int, on_line: Callable[[bytes], bool]) -> None:
        """Serve the network namespace of a process. When this returns, it is served.

        Raises:
            SandboxBrokenError: It cannot.
        """
        ...

    def drain(self) -> None:
        """Take the lines that came so far."""
        ...

    async def close(self) -> None:
        """End the process and collect it. Idempotent."""
        ...

    def abandon(self) -> None:
        """Do what ``close`` does, at once. Idempotent."""
        ...


class Gate:
    """The gate of one command, and what it waits for."""

    def __init__(self, peer: Peer, env: Mapping[str, str]) -> None:
        """Close the gate.

        Args:
            peer: What the command waits for.
            env: What the command is told of it.
        """
        self._peer = peer
        self.env = env
        self.closed_fd, self._open_fd = os.pipe()
        """What bubblewrap reads from before it goes on."""

    async def open(self, status: BubblewrapStatus, on_line: Callable[[bytes], bool]) -> None:
        """Let the command go once it is served. Called once.

        Args:
            status: Knows the first process of the command's namespaces.
            on_line: Takes a line for each refusal; tells whether there is room for more.

        Raises:
            SandboxBrokenError: Nothing serves it; the command must not go on.
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
            await self._peer.serve(pid, pidfd, on_line)
        finally:
            os.close(pidfd)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._open_fd, b"x")

    def drain(self) -> None:
        """Take the lines that came so far. Called when the command has ended, before its output does."""
        self._peer.drain()

    async def close(self) -> None:
        """End what it waited for. Called once the command is dead: one that still waits would read the end, and go on."""
        self._close_fds()
        await self._peer.close()

    def abandon(self) -> None:
        """Do so at once, for a command that was not started after all."""
        self._close_fds()
        self._peer.abandon()

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
    marks = {name: env[name] for name in (OWNER_MARKER, SANDBOX_MARKER) if name in env}
    if terms.network is Network.HOSTS:
        from sandbox.network.host_filter import HostFilter  # noqa: PLC0415 - for the first that has a list

        return Gate(HostFilter(terms.hosts, uid, marks), PROXY_ENV)
    if terms.link is not None:
        from sandbox.network.pasta import PastaLink  # noqa: PLC0415 - few hosts have it

        return Gate(PastaLink(terms.link, uid, marks), {})
    return None
