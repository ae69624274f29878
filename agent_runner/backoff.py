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

    async def wait(self) -> None:
        """Sleep a random time below the bound, and double the bound.

        Jitter keeps many agent-runners from returning in step after an outage (AWS: exponential backoff and jitter).
        """
        await asyncio.sleep(random.uniform(FIRST_S / 2, self._bound_s))  # noqa: S311 - no secret
        self._bound_s = min(self._bound_s * 2, LONGEST_S)

    def reset(self) -> None:
        """Start a new series."""
        self._bound_s = FIRST_S
