"""Every statement of the SQLite store. Parameters are positional, in the order of the columns in ``rows``."""

from __future__ import annotations

from daemon.jobs.rows import (
    ATTEMPT_COLUMNS,
    ATTEMPT_END_COLUMNS,
    EVENT_COLUMNS,
    JOB_STATE_COLUMNS,
)

# S608 is off for this file's strings: they are built from the column names in `rows`, never from values.
# ruff: noqa: S608


def _insert(table: str, columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


def _assignments(columns: tuple[str, ...]) -> str:
    return ", ".join(f"{column} = ?" for column in columns)


_JOB = ", ".join(f"jobs.{column}" for column in ("id", "create_us", "spec", *JOB_STATE_COLUMNS))
_ATTEMPT = ", ".join(f"attempts.{column}" for column in ATTEMPT_COLUMNS)
_HELD = "job_id = ? AND number = ? AND lease_token = ? AND state = 'RUNNING'"

INSERT_JOB = _insert(
    "jobs",
    (
        "id",
        "create_us",
        "request_id",
        "payload_sha256",
        "spec",
        "labels",
        "priority",
        *JOB_STATE_COLUMNS,
    ),
)
INSERT_ATTEMPT = _insert("attempts", ATTEMPT_COLUMNS)
INSERT_EVENT = _insert("events", EVENT_COLUMNS)

UPDATE_JOB = f"UPDATE jobs SET {_assignments(JOB_STATE_COLUMNS)} WHERE id = ?"
UPDATE_ATTEMPT = (
    f"UPDATE attempts SET {_assignments(ATTEMPT_END_COLUMNS)} WHERE job_id = ? AND number = ?"
)
RENEW_LEASE = (
    f"UPDATE attempts SET expire_us = ?, renew_us = ? WHERE {_HELD} "
    "AND agent_name = ? AND agent_incarnation = ?"
)
DESCRIBE_LOG = (
    "UPDATE attempts SET log_length = ?, log_sha256 = ? "
    "WHERE job_id = ? AND number = ? AND state <> 'RUNNING' AND log_sha256 = ''"
)
EXTEND_ALL_LEASES = "UPDATE attempts SET expire_us = ? WHERE state = 'RUNNING'"

SELECT_JOB = f"SELECT {_JOB} FROM jobs WHERE id = ?"
SELECT_JOB_STATE = "SELECT state FROM jobs WHERE id = ?"
SELECT_JOB_BY_REQUEST = f"SELECT payload_sha256, {_JOB} FROM jobs WHERE request_id = ?"
SELECT_KNOWN_REQUESTS = (
    "SELECT request_id FROM jobs WHERE request_id IN (SELECT value FROM json_each(?))"
)
SELECT_ATTEMPT = f"SELECT {_ATTEMPT} FROM attempts WHERE job_id = ? AND number = ?"
SELECT_ATTEMPTS = f"SELECT {_ATTEMPT} FROM attempts WHERE job_id = ? ORDER BY number"
SELECT_HELD = f"SELECT 1 FROM attempts WHERE {_HELD}"
SELECT_HELD_BY = (
    "SELECT job_id, number, lease_token FROM attempts JOIN jobs ON jobs.id = attempts.job_id "
    "WHERE attempts.state = 'RUNNING' AND agent_name = ? AND agent_incarnation = ? "
    "ORDER BY jobs.seq"
)

SELECT_EXPIRED = (
    f"SELECT {_ATTEMPT} FROM attempts JOIN jobs ON jobs.id = attempts.job_id "
    "WHERE attempts.state = 'RUNNING' AND expire_us <= ? ORDER BY jobs.seq"
)
SELECT_ANY_EXPIRED = "SELECT 1 FROM attempts WHERE state = 'RUNNING' AND expire_us <= ? LIMIT 1"
SELECT_PREDECESSORS = (
    f"SELECT {_ATTEMPT} FROM attempts JOIN jobs ON jobs.id = attempts.job_id "
    "WHERE attempts.state = 'RUNNING' AND agent_name = ? AND agent_incarnation <> ? "
    "ORDER BY jobs.seq"
)

SELECT_PENDING_LABELS = """
WITH RECURSIVE pending(labels) AS (
    SELECT min(labels) FROM jobs INDEXED BY jobs_pending WHERE state = 'PENDING'
    UNION ALL
    SELECT (
        SELECT min(labels) FROM jobs INDEXED BY jobs_pending
        WHERE state = 'PENDING' AND labels > pending.labels
    )
    FROM pending WHERE pending.labels IS NOT NULL
)
SELECT labels FROM pending WHERE labels IS NOT NULL
"""
"""The sets of labels among the pending jobs: one jump in the index for each, however many jobs have it."""

SELECT_PENDING_AMONG = (
    "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_pending "
    "WHERE state = 'PENDING' AND labels = value)"
)
"""Those of the given sets of labels that a pending job has."""

SELECT_PENDING = (
    f"SELECT -priority, seq, {_JOB} FROM jobs INDEXED BY jobs_pending "
    "WHERE state = 'PENDING' AND labels = ? ORDER BY priority DESC, seq LIMIT ?"
)

LIST_JOBS = f"SELECT seq, {_JOB} FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT ?"
LIST_JOBS_IN_STATE = (
    f"SELECT seq, {_JOB} FROM jobs INDEXED BY jobs_by_state "
    "WHERE state = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
)
COUNT_JOBS = "SELECT count(*) FROM jobs INDEXED BY jobs_by_state WHERE state = ?"
"""Milliseconds for a long queue; its caller asks once per many submits."""

_EVENT = ", ".join(("id", *EVENT_COLUMNS))
LIST_EVENTS = f"SELECT {_EVENT} FROM events WHERE id > ? ORDER BY id LIMIT ?"
LIST_EVENTS_OF_JOBS = (
    f"SELECT {_EVENT} FROM events "
    "WHERE id > ? AND job_id IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?"
)
LAST_EVENT_ID = "SELECT coalesce(max(id), 0) FROM events"
