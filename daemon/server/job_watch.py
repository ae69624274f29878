"""Streams of job events: a position in the store's list of events and a wake-up, so a slow watcher costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence

from daemon.errors import EventsRemovedError, ShuttingDownError, UsageError
from daemon.jobs.models import JobEvent
from daemon.jobs.store import JobStore
from daemon.server.signals import EVERY_JOB, STOP, Signals

BATCH = 500
MAX_JOB_IDS = 1000
NEWEST = -1


class JobWatch:
    """One per server."""

    def __init__(self, store: JobStore, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    async def start(self, after_event_id: int, job_ids: Sequence[str]) -> int:
        """Return the event to start after; called once per watcher.

        Raises:
            JobNotFoundError: One of the jobs does not exist (any more), so nothing would ever come of it.
            UsageError: The event id is malformed, or there are too many job ids.
            EventsRemovedError: Events after this one were removed with their jobs.
        """
        if after_event_id < NEWEST:
            raise UsageError(
                "after_event_id must be an event id, 0 for the oldest or -1 for the newest"
            )
        if len(job_ids) > MAX_JOB_IDS:
            raise UsageError(
                f"job_ids must hold at most {MAX_JOB_IDS} ids; watch all instead: leave it empty"
            )
        for job_id in job_ids:
            await self._store.get(job_id)
        if after_event_id == NEWEST:
            return await self._store.last_event_id()
        # A watcher of some jobs misses nothing: those were just found, and a job keeps all its events.
        if after_event_id > 0 and not job_ids:
            removed_id = await self._store.last_removed_event_id()
            if after_event_id < removed_id:
                raise EventsRemovedError(
                    f"events between {after_event_id} and {removed_id} were removed with old jobs: "
                    "list the jobs and watch on from -1, or from 0 for all events that are kept"
                )
        return after_event_id

    async def events(
        self, after_id: int, job_ids: Sequence[str], projects: Collection[str] | None
    ) -> AsyncGenerator[list[JobEvent], None]:
        """Yield all events after an id, for ever, as many at once as there are; without ``job_ids`` those of the projects, None for all.

        Raises:
            ShuttingDownError: The server stops; watch on from the last event later.
        """
        wanted = frozenset(job_ids)
        with self._signals.subscribe(wanted or (EVERY_JOB,)) as changes:
            while True:
                events = await self._store.events(after_id, BATCH, wanted)
                if events:
                    after_id = events[-1].id
                    if projects is not None and not wanted:
                        events = await self._of_projects(events, projects)
                    if events:
                        yield events
                    continue
                if STOP in await changes.wait():
                    raise ShuttingDownError(
                        "the job server is stopping; watch on from the last event later"
                    )

    async def _of_projects(
        self, events: Sequence[JobEvent], projects: Collection[str]
    ) -> list[JobEvent]:
        await asyncio.sleep(0)  # many may be of others, and then nothing is sent that would wait
        seen = await self._store.in_projects({event.job_id for event in events}, projects)
        return [event for event in events if event.job_id in seen]
