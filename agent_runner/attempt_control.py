"""The request to end an attempt early: from whoever wants it to the command that runs."""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import Callable

from sandbox.base import Command


class StopReason(enum.IntEnum):
    """Why a running attempt has to end early; a higher one overrules a lower one."""

    CANCEL = 1
    """Somebody cancelled the job."""
    RETURN = 2
    """No slot was free in time, so it has not begun; the attempt does not count."""
    INTERRUPT = 3
    """The agent-runner is going away; the attempt does not count."""
    LOST = 4
    """The lease is held no more; nothing is to be reported."""


class AttemptControl:
    """Carries the request to stop from the worker to the executor; used on one event loop."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._deadline = math.inf
        self._asked: asyncio.Event | None = None
        """Set at a request; made for who waits for one."""
        self.on_request: Callable[[], None] | None = None
        """Called at each request that made it more urgent, by whoever runs a command now."""

    @property
    def grace_s(self) -> float:
        """Return how much of the grace is left: a second request never gives back what has passed."""
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def stop(self, reason: StopReason, grace_s: float) -> None:
        """Ask for the end. Repeating it can only make it more urgent."""
        deadline = asyncio.get_running_loop().time() + grace_s
        if self.reason is None or reason > self.reason or deadline < self._deadline:
            self.reason = reason if self.reason is None else max(reason, self.reason)
            self._deadline = min(self._deadline, deadline)
            if self._asked is not None:
                self._asked.set()
            if self.on_request is not None:
                self.on_request()

    async def asked(self) -> None:
        """Wait until there is a request."""
        if self.reason is not None:
            return
        if self._asked is None:
            self._asked = asyncio.Event()
        await self._asked.wait()


class CommandStopper:
    """Stops one command at each request; a later, more urgent one shortens the grace of the first."""

    def __init__(self, command: Command, control: AttemptControl) -> None:
        self._command = command
        self._control = control
        self._running: asyncio.Task[None] | None = None
        control.on_request = self._stop
        if control.reason is not None:
            self._stop()

    async def close(self) -> None:
        """Listen no more, and wait for what was begun."""
        self._control.on_request = None
        if self._running is not None:
            await asyncio.wait([self._running])

    def _stop(self) -> None:
        grace_s = self._control.grace_s
        urgent = self._control.reason is StopReason.LOST or grace_s <= 0
        stop = self._command.kill() if urgent else self._command.stop(grace_s)
        previous, self._running = self._running, asyncio.ensure_future(stop)
        if previous is not None:
            previous.cancel()
