"""Reads within the writer's transaction."""

from __future__ import annotations

import sqlite3

from daemon.errors import JobNotFoundError
from daemon.jobs import statements
from daemon.jobs.models import Attempt, Job, LeaseRef
from daemon.jobs.rows import Row, attempt_from_row, job_from_row


def read(connection: sqlite3.Connection, sql: str, values: Row = ()) -> list[Row]:
    """Return all rows at once: a statement that is not read to its end stays open and holds back the commit."""
    return connection.execute(sql, values).fetchall()


def read_job(connection: sqlite3.Connection, job_id: str) -> Job:
    """Return one job.

    Raises:
        JobNotFoundError: No such job.
    """
    rows = read(connection, statements.SELECT_JOB, (job_id,))
    if not rows:
        raise JobNotFoundError(f"no job has the id {job_id!r}")
    return job_from_row(rows[0])


def read_attempt(connection: sqlite3.Connection, lease: LeaseRef) -> Attempt | None:
    """Return the attempt that a lease names, held or not."""
    rows = read(connection, statements.SELECT_ATTEMPT, (lease.job_id, lease.attempt))
    return attempt_from_row(rows[0]) if rows else None
