"""Events out of the database, of all jobs or of some."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from daemon.jobs import statements
from daemon.jobs.models import JobEvent
from daemon.jobs.rows import Row, event_from_row

Read = Callable[[str, Row], list[Row]]

EVENTS_PER_JOB = 20
"""To look up the events of one job costs as much as to pass over so many that are not wanted."""


def read_events(read: Read, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent]:
    """Return events; arguments are those of ``JobStore.events``.

    A watcher of many jobs that is near the end reads on from there. From further back the events of its jobs are looked
    up: all there are since would take tens of milliseconds.
    """
    if not job_ids:
        rows = read(statements.LIST_EVENTS, (after_id, limit))
    else:
        ((last_id,),) = read(statements.LAST_EVENT_ID, ())
        near = last_id - after_id <= EVENTS_PER_JOB * len(job_ids)
        sql = statements.LIST_NEWEST_EVENTS_OF_JOBS if near else statements.LIST_EVENTS_OF_JOBS
        rows = read(sql, (after_id, json.dumps([*job_ids]), limit))
    return [event_from_row(row) for row in rows]
