"""Removes jobs that have ended from the database."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Collection

from daemon.jobs import statements
from daemon.jobs.models import Excess, Removed
from daemon.jobs.rows import Row
from daemon.jobs.states import JobState
from daemon.jobs.writer_reads import read

ENDED = tuple(state for state in JobState if state.final)


def remove_ended(
    connection: sqlite3.Connection, excess: Excess, spared: Collection[str], limit: int
) -> Removed:
    """Remove ended jobs with their attempts and events; arguments are those of ``JobStore.remove_ended``."""
    spared_ids = json.dumps([*spared])
    ranges = [
        read(connection, statements.SELECT_OLDEST_ENDED, (state, spared_ids, limit))
        for state in ENDED
    ]
    jobs = log_bytes = 0
    for row in [*heapq.merge(*ranges)][:limit]:
        seq, job_id, end_us, attempts, event_ids = row
        over = jobs < excess.jobs or log_bytes < excess.log_bytes
        if not over and end_us >= excess.before_us:
            continue
        ((job_bytes,),) = read(connection, statements.LOG_BYTES_OF_JOB, (job_id,))
        _remove(connection, (seq, job_id, attempts), f"[{event_ids}]")
        jobs += 1
        log_bytes += job_bytes
    return Removed(jobs=jobs, log_bytes=log_bytes)


def _remove(connection: sqlite3.Connection, job: Row, event_ids: str) -> None:
    seq, job_id, attempts = job
    connection.execute(statements.DELETE_EVENTS, (event_ids,))
    connection.execute(statements.NOTE_REMOVED_EVENTS, (max(json.loads(event_ids), default=0),))
    connection.execute(statements.DELETE_ATTEMPTS, (job_id,))
    connection.execute(statements.DELETE_JOB, (seq,))
    if attempts:
        connection.execute(statements.INSERT_REMOVED_LOG, (job_id, attempts))
