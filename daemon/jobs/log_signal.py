"""Wakes the followers of a log when it has grown or ended. Nothing is kept for a log that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

LogKey = tuple[str, int]
"""Job id and attempt."""


@dataclass(slots=True)
class _Followers:
    loop: asyncio.AbstractEventLoop
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


class LogSignal:
    """One wake-up for all who wait for the same log. Followers wait on one event loop; any thread may wake them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[LogKey, _Followers] = {}

    def __len__(self) -> int:
        """Return for how many logs somebody waits."""
        return len(self._followers)

    async def wait(self, key: LogKey, is_due: Callable[[], bool]) -> None:
        """Wait for the next wake-up, or not at all if ``is_due()`` once the waiting is registered."""
        with self._lock:
            followers = self._followers.get(key)
            if followers is None:
                followers = self._followers[key] = _Followers(asyncio.get_running_loop())
            followers.waiting += 1
        try:
            if not is_due():
                await followers.woken.wait()
        finally:
            with self._lock:
                followers.waiting -= 1
                if not followers.waiting and self._followers.get(key) is followers:
                    del self._followers[key]

    def wake(self, key: LogKey) -> None:
        """Wake all who wait for a log. Cheap when there are none."""
        with self._lock:
            followers = self._followers.pop(key, None)
        if followers is not None:
            followers.loop.call_soon_threadsafe(followers.woken.set)

    def wake_all(self) -> None:
        """Wake everybody."""
        for key in list(self._followers):
            self.wake(key)
