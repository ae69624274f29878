"""Every statement of the SQLite store. Parameters are positional, in the order of the columns in ``rows``."""

from __future__ import annotations

from daemon.jobs.queue_keys import FIRST_OF_DEFAULT
from daemon.jobs.rows import (
    ARTIFACT_COLUMNS,
    ATTEMPT_COLUMNS,
    ATTEMPT_END_COLUMNS,
    EVENT_COLUMNS,
    JOB_STATE_COLUMNS,
    READ_COLUMNS,
)

# S608 is off for this file's strings: they are built from the column names in `rows`, never from values.
# ruff: noqa: S608


def _insert(table: str, columns: tuple[str, ...], **expressions: str) -> str:
    names = ", ".join((*columns, *expressions))
    values = ", ".join(("?",) * len(columns) + tuple(expressions.values()))
    return f"INSERT INTO {table} ({names}) VALUES ({values})"


def _assignments(columns: tuple[str, ...]) -> str:
    return ", ".join(f"{column} = ?" for column in columns)


_JOB = ", ".join(f"jobs.{column}" for column in (*READ_COLUMNS, *JOB_STATE_COLUMNS))
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
        "retry_of",
        "parent_id",
        "depth",
        "workflow_id",
        "group_name",
        "lane",
        *JOB_STATE_COLUMNS,
    ),
    event_ids="last_insert_rowid()",
)
"""Follows ``INSERT_EVENT``."""
INSERT_ATTEMPT = _insert("attempts", ATTEMPT_COLUMNS)
INSERT_EVENT = _insert("events", EVENT_COLUMNS)
INSERT_ARTIFACT = _insert("artifacts", ARTIFACT_COLUMNS)

UPDATE_JOB = (
    f"UPDATE jobs SET {_assignments(JOB_STATE_COLUMNS)}, "
    "event_ids = event_ids || ',' || last_insert_rowid() WHERE id = ?"
)
"""Follows ``INSERT_EVENT``."""
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
SELECT_STATE_AND_KEY = "SELECT state, labels FROM jobs WHERE id = ?"
SELECT_KEYS = "SELECT id, labels FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
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
    SELECT min(labels) FROM jobs INDEXED BY jobs_pending WHERE state = 'PENDING' AND hold = 0
    UNION ALL
    SELECT (
        SELECT min(labels) FROM jobs INDEXED BY jobs_pending
        WHERE state = 'PENDING' AND hold = 0 AND labels > pending.labels
    )
    FROM pending WHERE pending.labels IS NOT NULL
)
SELECT labels FROM pending WHERE labels IS NOT NULL
"""
"""The sets of labels among the pending jobs: one jump in the index for each, however many jobs have it."""

NEXT_PENDING_KEY = (
    "SELECT min(labels) FROM jobs INDEXED BY jobs_pending "
    "WHERE state = 'PENDING' AND hold = 0 AND labels >= ?"
)
"""The first set of labels from some text on: one jump."""

SELECT_PENDING_AMONG = (
    "SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_pending "
    "WHERE state = 'PENDING' AND hold = 0 AND labels = value)"
)
"""Those of the given sets of labels that a pending job has."""

SELECT_PENDING = (
    f"SELECT -priority, seq, {_JOB} FROM jobs INDEXED BY jobs_pending "
    "WHERE state = 'PENDING' AND hold = 0 AND labels = ? ORDER BY priority DESC, seq LIMIT ?"
)

SELECT_PENDING_OUTSIDE = (
    f"SELECT -priority, seq, {_JOB} FROM (SELECT * FROM jobs INDEXED BY jobs_pending "
    "WHERE state = 'PENDING' AND hold = 0 AND labels = ? ORDER BY priority DESC, seq LIMIT ?) AS jobs "
    "WHERE json_extract(spec, '$.sandbox.kind') = 'filesystem' "
    "OR json_extract(spec, '$.sandbox.fallback') = 'allow' "
    "OR (json_extract(spec, '$.sandbox.kind') = 'auto' "
    "AND ifnull(json_extract(spec, '$.project'), 'default') IN (SELECT value FROM json_each(?))) "
    "ORDER BY priority DESC, seq LIMIT ?"
)
"""Those among the first of the queue that do without a container, see ``outside``."""

_IN_RANGE = "seq >= ? AND create_us >= ? AND seq < ? ORDER BY seq DESC LIMIT ?"
LIST_JOBS = f"SELECT seq, {_JOB} FROM jobs WHERE {_IN_RANGE}"
LIST_JOBS_IN_STATE = (
    f"SELECT seq, {_JOB} FROM jobs INDEXED BY jobs_by_state WHERE state = ? AND {_IN_RANGE}"
)
_OF_DEFAULT = f"labels >= '{FIRST_OF_DEFAULT}'"
LIST_JOBS_OF_DEFAULT = f"SELECT seq, {_JOB} FROM jobs WHERE {_OF_DEFAULT} AND {_IN_RANGE}"
LIST_JOBS_OF_DEFAULT_IN_STATE = (
    f"SELECT seq, {_JOB} FROM jobs INDEXED BY jobs_by_state "
    f"WHERE state = ? AND {_OF_DEFAULT} AND {_IN_RANGE}"
)
"""Reads the jobs of other projects, too, so its caller asks for a part of the order of submits at a time."""
LIST_JOBS_WITH_LABELS = (
    f"SELECT seq, {_JOB} FROM jobs INDEXED BY jobs_by_labels "
    f"WHERE labels = ? AND labels <> '{{}}' AND state = ? AND {_IN_RANGE}"
)
NEXT_LABELS = (
    "SELECT labels FROM jobs INDEXED BY jobs_by_labels "
    "WHERE labels > ? AND labels < ? AND labels <> '{}' ORDER BY labels LIMIT 1"
)
"""The set of labels after another one, up to some text: one jump, however many jobs have it."""
SEQ_BOUNDS = "SELECT (SELECT min(seq) FROM jobs), (SELECT max(seq) FROM jobs)"
"""Two jumps; both in one would read the whole table."""
COUNT_JOBS = "SELECT count(*) FROM jobs INDEXED BY jobs_by_state WHERE state = ?"
"""Milliseconds for a long queue; its caller asks once per many submits."""

_EVENT = ", ".join(("id", *EVENT_COLUMNS))
LIST_EVENTS = f"SELECT {_EVENT} FROM events WHERE id > ? ORDER BY id LIMIT ?"
LIST_EVENTS_OF_JOBS = (
    f"SELECT {_EVENT} FROM events WHERE id IN ("
    "SELECT number.value FROM json_each(?2) AS wanted CROSS JOIN jobs ON jobs.id = wanted.value "
    "CROSS JOIN json_each('[' || jobs.event_ids || ']') AS number WHERE number.value > ?1"
    ") ORDER BY id LIMIT ?3"
)
"""Reads what is kept with each of the jobs, however many events there are."""
LIST_NEWEST_EVENTS_OF_JOBS = (
    f"SELECT {_EVENT} FROM events "
    "WHERE id > ? AND job_id IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?"
)
"""Reads every event after the given one."""
LAST_EVENT_ID = "SELECT coalesce(max(id), 0) FROM events"

_IN_LANE = "jobs INDEXED BY jobs_in_lane WHERE state = 'PENDING' AND ready_us IS NULL"
_OPEN = "jobs INDEXED BY jobs_open WHERE state = 'PENDING' AND hold = 0"
_HOLDING = "jobs INDEXED BY jobs_holding WHERE state IN ('RUNNING', 'CANCELLING')"
NEXT_LANE = (
    f"SELECT lane, seq FROM {_IN_LANE} AND group_name = ? AND lane > ? "
    "ORDER BY lane, priority DESC, seq LIMIT 1"
)
"""The lane after another one, and the best job in it: one jump, however many jobs are in line."""
SELECT_OPEN = f"SELECT seq FROM {_OPEN} AND group_name = ?"
COUNT_HOLDING = f"SELECT count(*) FROM {_HOLDING} AND group_name = ?"
LIST_HOLDING = f"SELECT id FROM {_HOLDING} AND group_name = ? ORDER BY seq"
UPDATE_HOLD = "UPDATE jobs SET hold = ? WHERE seq = ?"

WAKE_DUE = (
    "UPDATE jobs SET ready_us = NULL, backoff_us = 0, hold = iif(group_name IS NULL, 0, 3) "
    "WHERE seq IN (SELECT seq FROM jobs INDEXED BY jobs_timed WHERE hold = ? AND ready_us <= ? "
    "ORDER BY ready_us, seq LIMIT ?) RETURNING group_name"
)
NEXT_READY = "SELECT min(ready_us) FROM jobs INDEXED BY jobs_timed WHERE hold = ? AND ready_us >= 0"
CAP_BACKOFFS = (
    "UPDATE jobs SET ready_us = min(ready_us, ? + backoff_us) WHERE hold = ? AND ready_us > ?"
)

INSERT_DEPENDENCY = "INSERT INTO dependencies (depends_on, job_id, met) VALUES (?, ?, ?)"
MEET_DEPENDENCY = "UPDATE dependencies SET met = 1 WHERE depends_on = ?"
DELETE_DEPENDENCIES = "DELETE FROM dependencies WHERE job_id = ?"
SELECT_ANY_DEPENDENT = "SELECT 1 FROM dependencies WHERE depends_on = ? LIMIT 1"
SELECT_DEPENDENTS = (
    f"SELECT {_JOB} FROM dependencies JOIN jobs ON jobs.id = dependencies.job_id "
    "WHERE depends_on = ? AND met = 0 ORDER BY jobs.seq"
)
SELECT_UNMET = "SELECT depends_on FROM dependencies WHERE job_id = ? AND met = 0"
COUNT_AHEAD = (
    "SELECT count(*) FROM jobs INDEXED BY jobs_pending WHERE state = 'PENDING' AND hold = 0 "
    "AND labels = ?1 AND (priority > ?2 OR (priority = ?2 AND seq < (SELECT seq FROM jobs WHERE id = ?3)))"
)
NEWEST_RETRY = (
    f"SELECT {_JOB} FROM jobs WHERE retry_of = ? AND retry_of <> '' ORDER BY seq DESC LIMIT 1"
)

LIST_CHILDREN = (
    "SELECT id FROM jobs INDEXED BY jobs_by_parent "
    "WHERE parent_id = ? AND parent_id <> '' ORDER BY seq LIMIT ?"
)
NOTE_WORKFLOW_OUTPUT = "UPDATE jobs SET workflow_output = ? WHERE id = ?"
LIST_WORKFLOW_OUTPUTS = (
    "SELECT id, json_extract(spec, '$.name'), workflow_output FROM jobs INDEXED BY jobs_by_workflow "
    "WHERE workflow_id = ? AND workflow_id <> '' AND workflow_output <> '' ORDER BY end_us, seq"
)

SELECT_OLDEST_ENDED = (
    "SELECT seq, id, attempt, event_ids FROM jobs INDEXED BY jobs_by_state "
    "WHERE state = ?1 AND end_us < ?2 AND seq < (SELECT max(seq) FROM jobs) "
    "AND id NOT IN (SELECT value FROM json_each(?3)) "
    "AND id <> (SELECT job_id FROM events ORDER BY id DESC LIMIT 1) "
    "AND NOT EXISTS (SELECT 1 FROM dependencies WHERE depends_on = jobs.id) "
    "ORDER BY seq LIMIT ?4"
)
"""Neither the newest job nor that of the newest event: SQLite gives their numbers again if they are gone.

Reads every ended job where few are old enough: 40 ms for 100 000; its caller asks once a minute.
"""
LOG_BYTES_OF_JOB = (
    "SELECT (SELECT coalesce(sum(log_length), 0) FROM attempts WHERE job_id = ?1) "
    "+ (SELECT coalesce(sum(size), 0) FROM artifacts WHERE job_id = ?1)"
)
LOG_BYTES = (
    "SELECT (SELECT coalesce(sum(log_length), 0) FROM attempts WHERE state <> 'RUNNING') "
    "+ (SELECT coalesce(sum(size), 0) FROM artifacts)"
)
"""Milliseconds for many jobs; its caller asks once a minute."""
DELETE_JOB = "DELETE FROM jobs WHERE seq = ?"
DELETE_ATTEMPTS = "DELETE FROM attempts WHERE job_id = ?"
DELETE_ARTIFACTS = "DELETE FROM artifacts WHERE job_id = ?"
SELECT_ARTIFACTS = (
    "SELECT name, sha256, size, mode FROM artifacts WHERE job_id = ? AND attempt = ? ORDER BY name"
)
SELECT_REFERENCED = (
    "SELECT DISTINCT sha256 FROM artifacts WHERE sha256 IN (SELECT value FROM json_each(?))"
)
DELETE_EVENTS = "DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))"
NOTE_REMOVED_EVENTS = "UPDATE removed_events SET last_id = max(last_id, ?)"
SELECT_REMOVED_EVENT = "SELECT last_id FROM removed_events"
INSERT_REMOVED_LOG = "INSERT INTO removed_logs (job_id, attempts) VALUES (?, ?)"
LIST_REMOVED_LOGS = "SELECT job_id, attempts FROM removed_logs ORDER BY job_id LIMIT ?"
FORGET_REMOVED_LOGS = "DELETE FROM removed_logs WHERE job_id IN (SELECT value FROM json_each(?))"
