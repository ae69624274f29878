"""The events of the memory store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from itertools import islice

from daemon.jobs.models import Job, JobEvent


class MemoryEvents:
    """One per memory store. Ids run from one."""

    def __init__(self) -> None:
        self._events: list[JobEvent] = []
        self.last_id = 0
        self.last_removed_id = 0

    def add(self, job: Job, time_us: int) -> None:
        """Note that a job has changed its state."""
        self.last_id += 1
        self._events.append(
            JobEvent(
                id=self.last_id,
                job_id=job.id,
                state=job.state,
                attempt=job.attempt,
                time_us=time_us,
                end_reason=job.end_reason,
                exit_code=job.exit_code,
            )
        )

    def after(self, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent]:
        """Return events after an id, oldest first; empty ``job_ids`` keeps all."""
        wanted = frozenset(job_ids)
        first = bisect_right(self._events, after_id, key=lambda event: event.id)
        newer = (self._events[at] for at in range(first, len(self._events)))
        kept = (event for event in newer if not wanted or event.job_id in wanted)
        return [*islice(kept, limit)]

    def newest_job_id(self) -> str:
        """Return the job of the newest event; empty if there is none."""
        return self._events[-1].job_id if self._events else ""

    def remove(self, job_id: str) -> None:
        """Remove the events of a job."""
        gone = [event.id for event in self._events if event.job_id == job_id]
        self._events = [event for event in self._events if event.job_id != job_id]
        self.last_removed_id = max((self.last_removed_id, *gone))
