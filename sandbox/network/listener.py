"""A listening socket inside the network namespace of a job, which nothing of ours is in.

Whoever enters a user namespace cannot leave it, and no process with threads can enter one. So a child enters the
namespaces, makes the socket there, hands it back, and is gone: a socket stays in the namespace that it was made in.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct

from sandbox.network.control import PORT

_BACKLOG = 128
_NS_GET_USERNS = 0xB701
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_BOUND_S = 10.0


def listen_inside(pid: int, pidfd: int) -> socket.socket:
    """Return a socket that listens on the loopback of a process. Called once, by a process without threads.

    Args:
        pid: A process in the namespace.
        pidfd: The same process; it must live until this returns.

    Raises:
        OSError: The process is gone, or its namespaces cannot be entered.
    """
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if select.select([pidfd], [], [], 0)[0]:
            raise ProcessLookupError(f"the process {pid} has ended")
        return _made_by_child(namespace)
    finally:
        os.close(namespace)


def _made_by_child(namespace: int) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = os.fork()
        if child == 0:
            _make_and_send(namespace, theirs)  # does not return
        theirs.close()
        try:
            ours.settimeout(_BOUND_S)
            message, fds, _, _ = socket.recv_fds(ours, 256, 1)
        finally:
            os.waitpid(child, 0)
    if not fds:
        raise OSError(f"no listener inside: {message.decode() or 'its maker died'}")
    return socket.socket(fileno=fds[0])


def _make_and_send(namespace: int, result: socket.socket) -> None:
    """Enter, listen, send; the whole life of the child."""
    try:
        owner = fcntl.ioctl(namespace, _NS_GET_USERNS)
        _enter(owner, _CLONE_NEWUSER)
        _enter(namespace, _CLONE_NEWNET)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # The loopback may not be up yet.
        listener.setsockopt(socket.IPPROTO_IP, 15, struct.pack("i", 1))  # IP_FREEBIND
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", PORT))
        listener.listen(_BACKLOG)
        socket.send_fds(result, [b"listener"], [listener.fileno()])
    except OSError as error:
        result.send(str(error).encode()[:256])
    finally:
        os._exit(0)


def _enter(namespace: int, kind: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
