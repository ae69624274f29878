"""The wall-clock and the idle bound of one command, for every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from sandbox.base import ExecRequest
from sandbox.deadlines import deadlines


class Heard(Protocol):
    """When a command was last heard."""

    @property
    def paused(self) -> bool:
        """Whether nobody takes what it says, so that its silence is not its own."""
        ...

    @property
    def last_output(self) -> float:
        """The moment of its last output, by the clock of the loop."""
        ...


class TimeBounds:
    """Stops a command that runs or is silent for too long, and remembers which of the two it was.

    Made with each command, on its loop, whose clock is monotonic.
    """

    def __init__(
        self,
        request: ExecRequest,
        output: Heard,
        *,
        may_stop: Callable[[], bool],
        stop: Callable[[float], Awaitable[None]],
    ) -> None:
        """Start both clocks, of those that were asked for.

        Args:
            request: Has the bounds and the seconds between TERM and KILL.
            output: What the idle bound looks at.
            may_stop: Tells whether the command runs still and nobody else has stopped it.
            stop: Stops it, with the seconds that it has before KILL.
        """
        self.timed_out = False
        self.idle_timed_out = False
        self._grace_s = request.grace_s
        self._output = output
        self._may_stop = may_stop
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._deadlines = deadlines(self._loop)
        self._idle: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Future[None] | None = None
        if request.timeout_s is not None:
            self._deadlines.keep(self._loop.time() + request.timeout_s, self._on_wall)
        if request.idle_timeout_s is not None:
            self._on_idle_check(request.idle_timeout_s)

    @property
    def was_hit(self) -> bool:
        """Whether the command was stopped for one of them."""
        return self.timed_out or self.idle_timed_out

    def cancel(self) -> None:
        """Stop the clocks. Called once, at the end of the command."""
        self._deadlines.drop(self._on_wall)
        if self._idle is not None:
            self._idle.cancel()

    def _on_wall(self) -> None:
        if self._may_stop():
            self.timed_out = True
            self._stop_soon()

    def _on_idle_check(self, limit: float) -> None:
        now = self._loop.time()
        last = now if self._output.paused else self._output.last_output
        if now - last < limit:
            self._idle = self._loop.call_at(last + limit, self._on_idle_check, limit)
        elif self._may_stop():
            self.idle_timed_out = True
            self._stop_soon()

    def _stop_soon(self) -> None:
        self._stopping = asyncio.ensure_future(self._stop(self._grace_s))
