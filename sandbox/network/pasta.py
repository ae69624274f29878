"""A network namespace of a job's own that reaches what the host reaches, but not the host: by pasta (passt.top).

pasta copies the host's addresses and routes into the namespace, and carries packets as an ordinary user. Nothing is
forwarded to the host's loopback, and abstract sockets are those of the namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

from sandbox.errors import SandboxBrokenError

PASTA = "/usr/bin/pasta"
START_S = 10.0
_NS_GET_USERNS = 0xB701
_OPTIONS = (
    *("--config-net", "--foreground", "--quiet", "--stderr"),
    *("--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
    *("--no-map-gw", "--no-dhcp", "--no-dhcpv6"),
)
# pasta loses its death signal when it enters a user namespace, and would outlive a runner that is killed.
# It lets go of the end of the pipe by which pasta tells that it is ready, so that its death is seen.
_KEEPER = '"$@" & exec 3>&-; read -r line; kill -9 $!; wait'
_READY_FD, _NAMESPACE_FD, _OWNER_FD = 3, 4, 5
"""In pasta and its keeper, whose shell knows one digit only."""
_ABOVE = 10
"""What is to become one of these must not be in the place of another."""


def resolver_problem(resolv_conf: str) -> str:
    """Return why names could not be looked up from a namespace; empty if they can.

    Args:
        resolv_conf: The content of resolv.conf(5).
    """
    for line in resolv_conf.splitlines():
        words = line.split()
        address = words[1] if words[:1] == ["nameserver"] and len(words) > 1 else ""
        if address.startswith("127.") or address == "::1":
            return f"the name server {address} is on the loopback of the host"
    return ""


class PastaLink:
    """The pasta of one command. ``serve`` once, ``close`` always. Used on one event loop."""

    def __init__(self, program: str, uid: int | None, env: dict[str, str]) -> None:
        """Remember what to start.

        Args:
            program: Where pasta is.
            uid: User to become, if this process is root's.
            env: Marks the process for those who look for leftovers.
        """
        self._program = program
        self._uid = uid
        self._env = env
        self._keeper: int | None = None
        self._leash: int | None = None

    async def serve(self, pid: int, pidfd: int, _on_line: Callable[[bytes], bool]) -> None:
        """Connect a namespace. When this returns, it has its addresses and routes.

        Args:
            pid: A process in the network namespace, which does not end or go on before this returns.
            pidfd: The same process.

        Raises:
            SandboxBrokenError: It cannot.
        """
        with contextlib.ExitStack() as undo:

            def kept(fd: int) -> int:
                undo.callback(os.close, fd)
                return fd

            try:
                namespace = kept(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
                if select.select([pidfd], [], [], 0)[0]:
                    raise ProcessLookupError(f"the process {pid} has ended")
                owner = kept(fcntl.ioctl(namespace, _NS_GET_USERNS))
                said = kept(os.memfd_create("pasta", os.MFD_CLOEXEC))
                ready_read, ready_write = (kept(fd) for fd in os.pipe())
                if self._uid is not None:
                    os.fchown(ready_write, self._uid, self._uid)
                self._start(namespace, owner, said, ready_write)
            except OSError as error:
                raise SandboxBrokenError(f"no network by pasta: {error}") from error
            undo.pop_all()
            for fd in (namespace, owner, ready_write):
                os.close(fd)
            undo.callback(os.close, said)
            undo.callback(os.close, ready_read)
            if not await _told(ready_read):
                text = os.pread(said, 4096, 0).decode("utf-8", "replace")
                lines = [line for line in text.splitlines() if "syslog" not in line]
                raise SandboxBrokenError(f"no network by pasta: {' '.join(lines[-1:])}")

    def drain(self) -> None:
        """Do nothing: there is nothing to tell."""

    async def close(self) -> None:
        """End the process and collect it. Idempotent."""
        if (keeper := self._let_go()) is not None:
            await asyncio.to_thread(_collect, keeper)

    def abandon(self) -> None:
        """Do what ``close`` does, at once. Idempotent."""
        if (keeper := self._let_go()) is not None:
            _collect(keeper)

    def _start(self, namespace: int, owner: int, said: int, ready: int) -> None:
        runas = () if self._uid is None else ("--runas", f"{self._uid}:{self._uid}")
        argv = [
            *("/bin/sh", "-c", _KEEPER, "pasta-keeper", self._program, *_OPTIONS, *runas),
            *("--pid", f"/proc/self/fd/{_READY_FD}", "--netns", f"/proc/self/fd/{_NAMESPACE_FD}"),
            *("--userns", f"/proc/self/fd/{_OWNER_FD}"),
        ]
        leash_read, self._leash = os.pipe()
        given = {_READY_FD: ready, _NAMESPACE_FD: namespace, _OWNER_FD: owner}
        high = {to: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for to, fd in given.items()}
        try:
            self._keeper = os.posix_spawn(
                argv[0],
                argv,
                self._env,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, leash_read, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, said, 2),
                    *((os.POSIX_SPAWN_DUP2, fd, to) for to, fd in high.items()),
                ],
                setpgroup=0,
                setsigmask=(),
                # What Python ignores, pasta refuses to find ignored.
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        finally:
            for fd in (leash_read, *high.values()):
                os.close(fd)

    def _let_go(self) -> int | None:
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None
        keeper, self._keeper = self._keeper, None
        return keeper


def host_problem(program: str) -> str:
    """Return why pasta is of no use on this host, as far as that shows without starting it; empty if it may be."""
    if not Path(program).exists():
        return "pasta is not installed"
    try:
        return resolver_problem(Path("/etc/resolv.conf").read_text(errors="replace"))
    except OSError:
        return ""


async def _told(fd: int) -> bool:
    """Wait until something can be read, and tell whether it is more than the end."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        async with asyncio.timeout(START_S):
            await readable.wait()
        return bool(os.read(fd, 64))
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)


def _collect(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
