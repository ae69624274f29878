"""Streams of job events: a position in the store's list of events and a wake-up, so a slow watcher costs nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Collection, Sequence

from daemon.errors import EventsRemovedError, ShuttingDownError, UsageError
from daemon.jobs.models import JobEvent
from daemon.jobs.store import JobStore
from daemon.server.signals import EVERY_JOB, STOP, Signals

BATCH = 500
BUSY_MESSAGES = 4
"""More than the life of one short job takes."""
BUSY_S = 0.02
PAUSE_S = 0.004
"""Before the next message of a watcher who got so many in so short a time: each costs far more than what is in it."""
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
        stopping = False
        sent: deque[float] = deque(maxlen=BUSY_MESSAGES)
        with self._signals.subscribe(wanted or (EVERY_JOB,)) as changes:
            while True:
                # What was signalled until here is read now; what is signalled from here on is kept.
                stopping = STOP in changes.take() or stopping
                events = await self._store.events(after_id, BATCH, wanted)
                if events:
                    after_id = events[-1].id
                    shown = events
                    if projects is not None and not wanted:
                        shown = await self._of_projects(events, projects)
                    if shown:
                        yield shown
                        await _pause_if_busy(sent)
                if len(events) == BATCH:
                    continue
                if stopping:
                    raise ShuttingDownError(
                        "the job server is stopping; watch on from the last event later"
                    )
                stopping = STOP in await changes.wait()
                await asyncio.sleep(0)  # what the change has assigned goes out first

    async def _of_projects(
        self, events: Sequence[JobEvent], projects: Collection[str]
    ) -> list[JobEvent]:
        await asyncio.sleep(0)  # many may be of others, and then nothing is sent that would wait
        seen = await self._store.in_projects({event.job_id for event in events}, projects)
        return [event for event in events if event.job_id in seen]


async def _pause_if_busy(sent: deque[float]) -> None:
    """Note that a message was sent, and let the next one gather some events if there were several just now."""
    now = asyncio.get_running_loop().time()
    sent.append(now)
    if len(sent) == BUSY_MESSAGES and now - sent[0] < BUSY_S:
        await asyncio.sleep(PAUSE_S)
