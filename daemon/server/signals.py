"""Wake-ups within the server: who waits for a change of something gets one, and then reads the change from the store.

A wake-up carries no data, so a slow waiter costs nothing: any number of changes while it was busy are one wake-up.
Signals of a key are given *after* the change can be read. A waiter that reads first and then waits misses nothing,
because a signal given in between is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

EVERY_JOB = "*"
"""The key that hears of the changes of all jobs."""
STOP = "stop"
"""The key that every subscription hears when the server stops."""
LOG_PREFIX = "log:"


def log_key(job_id: str) -> str:
    """Return the key that hears of bytes added to the logs of a job."""
    return LOG_PREFIX + job_id


class Subscription:
    """One waiter's view. Made by ``Signals.subscribe``; used by one task."""

    __slots__ = ("_event", "_fired")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._fired: set[str] = set()

    def signal(self, key: str) -> None:
        """Wake the waiter, or let its next wait return at once."""
        self._fired.add(key)
        self._event.set()

    async def wait(self) -> set[str]:
        """Wait for at least one signal and return the keys of all since the last time."""
        await self._event.wait()
        return self.take()

    def take(self) -> set[str]:
        """Return the keys of all signals since the last time, without waiting."""
        fired = self._fired
        if fired:
            self._fired = set()
            self._event.clear()
        return fired


class Signals:
    """All waiters of one server. Used on one event loop."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[Subscription]] = {}
        self.stopping = False

    @contextmanager
    def subscribe(self, keys: Iterable[str]) -> Iterator[Subscription]:
        """Listen to some keys, and to the end of the server, for as long as the block lasts."""
        subscription = Subscription()
        listened = {*keys, STOP}
        for key in listened:
            self._waiters.setdefault(key, set()).add(subscription)
        if self.stopping:
            subscription.signal(STOP)
        try:
            yield subscription
        finally:
            for key in listened:
                waiters = self._waiters[key]
                waiters.discard(subscription)
                if not waiters:
                    del self._waiters[key]

    def job_changed(self, job_id: str) -> None:
        """Tell that the state of a job has changed; called after every such change."""
        self._signal(job_id)
        self._signal(EVERY_JOB)

    def log_grown(self, job_id: str) -> None:
        """Tell that a log of a job has become longer; called for every piece."""
        self._signal(LOG_PREFIX + job_id)

    def log_readers(self) -> list[str]:
        """Return the jobs whose logs somebody reads or follows at this moment."""
        return [key.removeprefix(LOG_PREFIX) for key in self._waiters if key.startswith(LOG_PREFIX)]

    def stop(self) -> None:
        """Wake everybody for the last time; later subscriptions are woken at once."""
        self.stopping = True
        self._signal(STOP)

    def _signal(self, key: str) -> None:
        for subscription in self._waiters.get(key, ()):
            subscription.signal(key)
