"""Time, injected so that tests can own it. The only reader of the system's clocks in this package."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks, both in microseconds since the Unix epoch."""

    def now_us(self) -> int:
        """Return the wall-clock time, for records that people read."""
        ...

    def steady_us(self) -> int:
        """Return a time that never jumps within this process, for leases and bounds."""
        ...


class SystemClock:
    """The clocks of this host."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        """Return the wall-clock time."""
        return time.time_ns() // 1000

    def steady_us(self) -> int:
        """Return the wall-clock time of this process's start plus what has passed since (CLOCK_MONOTONIC)."""
        return (time.monotonic_ns() + self._offset_ns) // 1000


class FixedClock:
    """A clock that moves only when told to; for tests and the store's conformance suite."""

    def __init__(self, start_us: int = 1_700_000_000_000_000) -> None:
        self.time_us = start_us

    def now_us(self) -> int:
        """Return the time that was set."""
        return self.time_us

    def steady_us(self) -> int:
        """Return the time that was set."""
        return self.time_us

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self.time_us += int(seconds * 1_000_000)
