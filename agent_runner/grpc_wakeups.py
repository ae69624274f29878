"""Has an event loop hear of everything that gRPC has finished at once.

For each operation that ends, a thread of gRPC notes it and writes a byte to a socket that the loop reads. Its reader then
takes everything that is noted, but a single byte: where five operations have ended together the four bytes that are left
wake the loop four times more, for nothing. For a short job these were more than half of all its wake-ups.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

MAX_BYTES = 4096
"""That are taken at once. What is left then is not lost: it wakes the loop again."""


@contextmanager
def heard_at_once() -> Iterator[None]:
    """Wrap the first use of ``grpc.aio`` in a loop, which is when it asks the loop to watch its socket.

    For processes in which one loop uses gRPC: those of several would read the same socket.
    """
    loop: Any = asyncio.get_running_loop()
    add_reader = loop.add_reader

    def add(wakeups: socket.socket, callback: Callable[..., object], *args: object) -> None:
        add_reader(wakeups, _hear, wakeups, partial(callback, *args))

    loop.add_reader = add
    try:
        yield
    finally:
        loop.add_reader = add_reader


def _hear(wakeups: socket.socket, take_events: Callable[[], object]) -> None:
    # An event is noted before its byte is written, so whatever is dropped here stands for events that are taken now.
    waiting = len(wakeups.recv(MAX_BYTES, socket.MSG_PEEK))
    if waiting > 1:
        wakeups.recv(waiting - 1)
    take_events()
