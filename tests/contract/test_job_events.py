"""What it costs to read the events of some jobs, in steps of SQLite's machine, on a real database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.jobs.job_events import read_events
from daemon.jobs.rows import Row
from daemon.jobs.sqlite_store import SqliteJobStore
from tests.contract.job_store_backends import SUCCESS, finished, submitted

JOBS = 1000
STEPS = 3000
"""Far fewer than one for each event."""


class CountedReads:
    """Reads of one database with the machine's steps, in hundreds."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        self.connection.set_progress_handler(self._count, 100)
        self.steps = 0

    def read(self, sql: str, values: Row) -> list[Row]:
        return self.connection.execute(sql, values).fetchall()

    def _count(self) -> int:
        self.steps += 100
        return 0


@pytest.mark.parametrize("count", [1, 3])
async def test_events_of_few_jobs_among_many(tmp_path: Path, count: int):
    """Reading from the first one costs what these jobs have, not what all have; near the last one, what is new."""
    path = tmp_path / "jobs.db"
    store = SqliteJobStore(path, FixedClock())
    await store.open()
    ids = await submitted(store, count, priority=1)
    for _ in range(JOBS // 100):
        await submitted(store, 100)
    for _ in ids:
        await finished(store, SUCCESS)
    last_id = await store.last_event_id()
    reads = CountedReads(path)

    with closing(reads.connection):
        events = read_events(reads.read, 0, 500, ids)
        newest = read_events(reads.read, last_id - 2, 500, ids)

    assert [event.id for event in events[:count]] == [*range(1, count + 1)]
    assert len(events) == 3 * count
    assert newest == events[-2:]
    assert reads.steps < STEPS
    await store.close()
