"""The process of a proxy: one for each command that may reach a list of hosts.

A process of its own, not a part of the agent-runner: what a job sends is parsed where no secret and no lease is, as the
user of the job and without rights, and a job that opens a thousand connections exhausts its own proxy's descriptors and
nobody's loop. It ends with the socket to the agent-runner. Only the standard library and this package are
loaded: it starts in some 80 ms, beside the sandbox that it is for.

It gets one message, with a descriptor of a process of the sandbox, and sends messages: ``ready``, or ``failed`` and why, then a
line for each refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket

from sandbox.network.control import CONTROL_FD, FAILED, MAX_MESSAGE_BYTES, READY
from sandbox.network.listener import listen_inside
from sandbox.network.proxy import MAX_CONNECTIONS, Proxy
from sandbox.network.resolver import SystemResolver
from sandbox.network.rules import HostRules

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_SPARE_FILES = 64


def main() -> None:
    """Serve until the agent-runner closes the socket. Started by ``HostFilter``, with the socket as descriptor 3."""
    _die_with_parent()
    control = socket.socket(fileno=CONTROL_FD)
    message, fds, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
    if not message or not fds:
        return
    order = json.loads(message)
    try:
        rules = HostRules(order["hosts"])
        listener = listen_inside(order["pid"], fds[0])
        os.close(fds[0])
        _give_up(order["uid"])
    except (OSError, ValueError) as error:
        control.send(FAILED + str(error).encode())
        return
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(control, listener, rules))


async def _serve(control: socket.socket, listener: socket.socket, rules: HostRules) -> None:
    control.setblocking(False)
    loop = asyncio.get_running_loop()
    sending = asyncio.Lock()

    async def report(line: str) -> None:
        async with sending:
            await loop.sock_sendall(control, line.encode())

    proxy = Proxy(rules, SystemResolver(), report)
    serving = asyncio.ensure_future(proxy.serve(listener))
    await report(READY.decode())
    try:
        # Nothing more is ever sent: what comes is the end.
        await loop.sock_recv(control, 1)
    finally:
        serving.cancel()
        await asyncio.wait({serving})
    # A thread may still wait for a name server.
    os._exit(0)


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _give_up(uid: int | None) -> None:
    """Become the job's user, if this is root, and bound what a flood of connections can take."""
    libc = ctypes.CDLL(None, use_errno=True)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # The change of the user has undone it.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    files = 2 * MAX_CONNECTIONS + _SPARE_FILES
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
