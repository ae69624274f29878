"""A document that is handed to another process, and the descriptors that come along.

Over a socket, because it carries descriptors too (SCM_RIGHTS, unix(7)), so that a process can be spawned before it is
known what it will need. Where nobody is left to write, the document lies in anonymous memory, and the descriptors are inherited.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Sequence

_MAX_DESCRIPTORS = 8
_PIECE_BYTES = 64 << 10


def begin(channel: socket.socket, document: bytes, fds: Sequence[int]) -> int:
    """Send descriptors with as much of a document as there is room for; return how many bytes that was.

    Raises:
        OSError: The descriptors cannot be sent; a ConnectionError if the other end is closed.
    """
    return socket.send_fds(channel, [document], fds)


def has_come(fd: int) -> bool:
    """Tell whether ``take`` would return at once or soon, as its sender has begun or has gone."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def take(fd: int) -> tuple[bytes, list[int]]:
    """Wait for a whole document; return it, empty if its sender has gone, and the descriptors that came along.

    Closes ``fd``, which is the only thing that this process reads of it; what came is not inheritable.

    Raises:
        OSError: There is no room for the descriptors.
    """
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        with os.fdopen(fd, "rb") as source:
            return source.read(), []
    with socket.socket(fileno=fd) as channel:
        piece, fds, flags, _ = socket.recv_fds(channel, _PIECE_BYTES, _MAX_DESCRIPTORS)
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        for each in fds:  # Python 3.11 forgets the flag that would do it
            os.set_inheritable(each, False)
        pieces = []
        while piece:
            pieces.append(piece)
            piece = channel.recv(_PIECE_BYTES)
    return b"".join(pieces), fds
