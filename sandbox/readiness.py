"""Tells when descriptors can be read, all of them by one registration at the loop.

A command brings two descriptors that are watched for a few milliseconds. To register and forget one at a loop of
asyncio takes sixty calls of Python; at an epoll of our own, which the loop watches, four.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

_MOST = 64
"""How many are told in one turn of the loop; the others come in the next."""


class Readiness:
    """The descriptors of one loop. Made by ``readiness``; used on its loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        loop.add_reader(self._epoll, self._tell)

    def watch(self, fd: int, call: Callable[[], object]) -> None:
        """Call whenever a descriptor can be read or has ended, until ``forget``.

        Raises:
            OSError: The kernel has no memory for it, or it is watched already.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def forget(self, fd: int) -> None:
        """Watch a descriptor no more. Called before it is closed; idempotent."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Give the descriptor back at once, if its loop is closed: what is left of a loop may be collected late."""
        if self.loop.is_closed():
            self._epoll.close()

    def _tell(self) -> None:
        calls = self._calls
        # The last one first: the output of a process ends before the process does, and who hears of the end of both
        # in this order is woken once.
        ready = [(fd, calls[fd]) for fd, _ in reversed(self._epoll.poll(0, _MOST))]
        for fd, call in ready:
            # One that another call has forgotten, whose number may be somebody else's by now, is not told.
            if calls.get(fd) is call:
                call()


_latest: list[Readiness] = []
"""One, that of the loop that asked last: a process has one loop at a time."""


def readiness(loop: asyncio.AbstractEventLoop) -> Readiness:
    """Return what watches for a loop; called once per command and descriptor, and once remembered by the caller."""
    if not _latest or _latest[0].loop is not loop:
        for before in _latest:
            before.close()
        _latest[:] = [Readiness(loop)]
    return _latest[0]
