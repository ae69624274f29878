"""Calls at moments, nearly all of which are dropped before: all of them by one timer of the loop.

Each command has a time-out, mostly an hour away, and ends long before it. A timer of its own takes a dozen calls of Python
to make and to cancel, and its loop tidies up after every hundred of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadlines:
    """The calls of one loop. Made by ``deadlines``; used on its loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._moments: dict[Callable[[], None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def keep(self, moment: float, call: Callable[[], None]) -> None:
        """Call at a moment by the clock of the loop, once, unless ``drop`` comes first."""
        self._moments[call] = moment
        # A timer that rings too early costs less than to make one for each.
        if self._timer is None or moment < self._timer.when():
            self._set(moment)

    def drop(self, call: Callable[[], None]) -> None:
        """Call no more. Idempotent."""
        self._moments.pop(call, None)

    def _set(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(moment, self._ring, moment)

    def _ring(self, moment: float) -> None:
        self._timer = None
        due = [call for call, at in self._moments.items() if at <= moment]
        for call in due:
            del self._moments[call]
            self.loop.call_soon(call)
        if self._moments:
            self._set(min(self._moments.values()))


_latest: list[Deadlines] = []
"""One, that of the loop that asked last: a process has one loop at a time."""


def deadlines(loop: asyncio.AbstractEventLoop) -> Deadlines:
    """Return what keeps the deadlines of a loop; called once per command."""
    if not _latest or _latest[0].loop is not loop:
        _latest[:] = [Deadlines(loop)]
    return _latest[0]
