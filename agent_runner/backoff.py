"""Waiting between tries to reach the server: exponential, with full jitter, never giving up."""

from __future__ import annotations

import asyncio
import random

FIRST_S = 0.05
LONGEST_S = 2.0


class Backoff:
    """The state of one series of tries."""

    def __init__(self) -> None:
        self._bound_s = FIRST_S
        self._longest_s = LONGEST_S

    def limit(self, longest_s: float) -> None:
        """Wait at most this long from now on, if it is shorter: a lease gives no more time than it lasts."""
        self._longest_s = min(longest_s, LONGEST_S)
        self._bound_s = min(self._bound_s, self._longest_s)

    async def wait(self) -> None:
        """Sleep for the next time of the series."""
        await asyncio.sleep(self.next_s())

    def next_s(self) -> float:
        """Return a random time below the bound, and double the bound.

        Jitter keeps many agent-runners from returning in step after an outage (AWS: exponential backoff and jitter).
        """
        bound_s = self._bound_s
        self._bound_s = min(bound_s * 2, self._longest_s)
        return random.uniform(min(FIRST_S, bound_s) / 2, bound_s)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Start a new series."""
        self._bound_s = min(FIRST_S, self._longest_s)
