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
ALWAYS_US = (1 << 63) - 1
"""Every job has ended before this."""


def remove_ended(
    connection: sqlite3.Connection, excess: Excess, spared: Collection[str], limit: int
) -> Removed:
    """Remove ended jobs with their attempts and events; arguments are those of ``JobStore.remove_ended``."""
    jobs = log_bytes = 0
    for row in _oldest(connection, spared, limit) if excess.jobs or excess.log_bytes else ():
        if jobs >= excess.jobs and log_bytes >= excess.log_bytes:
            break
        log_bytes += _remove(connection, row)
        jobs += 1
    if excess.before_us:
        for row in _oldest(connection, spared, limit - jobs, excess.before_us):
            log_bytes += _remove(connection, row)
            jobs += 1
    return Removed(jobs=jobs, log_bytes=log_bytes)


def _oldest(
    connection: sqlite3.Connection,
    spared: Collection[str],
    limit: int,
    before_us: int = ALWAYS_US,
) -> list[Row]:
    spared_ids = json.dumps([*spared])
    ranges = [
        read(connection, statements.SELECT_OLDEST_ENDED, (state, before_us, spared_ids, limit))
        for state in ENDED
    ]
    return [*heapq.merge(*ranges)][:limit]


def _remove(connection: sqlite3.Connection, job: Row) -> int:
    """Remove a job and return how long its logs are."""
    seq, job_id, attempts, events = job
    event_ids = f"[{events}]"
    ((log_bytes,),) = read(connection, statements.LOG_BYTES_OF_JOB, (job_id,))
    connection.execute(statements.DELETE_EVENTS, (event_ids,))
    connection.execute(statements.NOTE_REMOVED_EVENTS, (max(json.loads(event_ids), default=0),))
    connection.execute(statements.DELETE_ATTEMPTS, (job_id,))
    connection.execute(statements.DELETE_ARTIFACTS, (job_id,))
    connection.execute(statements.DELETE_JOB, (seq,))
    if attempts:
        connection.execute(statements.INSERT_REMOVED_LOG, (job_id, attempts))
    return int(log_bytes)
