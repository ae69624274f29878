"""The newest events of a store, so that a watcher who is at the end of them reads no database for the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from daemon.jobs.models import JobEvent

KEPT = 512
"""A hundred kilobytes, and the lives of 170 short jobs."""


class RecentEvents:
    """One per store; used on its event loop."""

    def __init__(self) -> None:
        self._events: deque[JobEvent] = deque(maxlen=KEPT)

    def add(self, events: Iterable[JobEvent]) -> None:
        """Keep events that are durable; called per change, in the order of the changes, for every event that there is."""
        self._events.extend(events)

    def forget(self) -> None:
        """Keep none of those that are here; called when some were removed."""
        self._events.clear()

    def after(self, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent] | None:
        """Return events after an id, oldest first; empty ``job_ids`` keeps all. None if there may be more than is kept here."""
        if not self._events or after_id < self._events[0].id - 1:
            return None
        found = []
        for event in reversed(self._events):
            if event.id <= after_id:
                break
            if not job_ids or event.job_id in job_ids:
                found.append(event)
        found.reverse()
        return found[:limit]
