"""Finds the jobs that an offer can take, best first, by jumps in one index: the cost does not grow with the queue."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from agent_runner.project_names import DEFAULT_PROJECT
from daemon.jobs import statements
from daemon.jobs.labels import matches, subset_keys
from daemon.jobs.models import AgentOffer, Job
from daemon.jobs.queue_keys import is_served, key_range, keys_of, project_of
from daemon.jobs.rows import Row, job_from_row
from daemon.jobs.writer_reads import read

MAX_KEYS = 256
"""To look up more of them costs more than to test each that is in the queue."""
MAX_LOOKS = 1000
"""Among so many jobs of equal labels those are looked for that do without a container: some milliseconds."""


def best_pending(connection: sqlite3.Connection, offer: AgentOffer, limit: int) -> list[Job]:
    """Return up to ``limit`` jobs that may be claimed for an offer; called in the writer's thread, per claim."""
    if limit <= 0:
        return []
    rows: list[Row] = []
    for key in _matching_keys(connection, offer):
        if offer.outside is None:
            rows += read(connection, statements.SELECT_PENDING, (key, limit))
        else:
            values = (key, MAX_LOOKS, json.dumps([*offer.outside]), limit)
            rows += read(connection, statements.SELECT_PENDING_OUTSIDE, values)
    rows.sort(key=_rank)
    return [job_from_row(row[2:]) for row in rows[:limit]]


def _matching_keys(connection: sqlite3.Connection, offer: AgentOffer) -> Sequence[str]:
    label_keys = subset_keys(offer.labels)
    keys = None
    if label_keys is not None:
        projects = offer.projects
        if projects is None:
            projects = frozenset(_pending_projects(connection))
        if len(projects) * len(label_keys) <= MAX_KEYS:
            keys = keys_of(projects, label_keys)
    if keys is None:
        found = read(connection, statements.SELECT_PENDING_LABELS)
        return [
            key for (key,) in found if is_served(key, offer.projects) and matches(key, offer.labels)
        ]
    if len(keys) <= 1:
        return keys
    found = read(connection, statements.SELECT_PENDING_AMONG, (json.dumps(keys),))
    return [key for (key,) in found]


def _pending_projects(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield each project of which a job may be claimed; the default one, whose texts sort last, is the last."""
    first = ""
    while True:
        ((key,),) = read(connection, statements.NEXT_PENDING_KEY, (first,))
        if key is None:
            return
        project = project_of(key)
        yield project
        if project == DEFAULT_PROJECT:
            return
        first = key_range(project)[1]


def _rank(row: Row) -> Row:
    return row[:2]
