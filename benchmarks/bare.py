"""P6: how long one job takes on an idle system, against the same steps inside one process.

The floor has a durable queue and nothing else: no RPC, no log, no walls, no other process but the command. Submit, claim
and end are one commit each, as in the product; a thread waits for the queue, another one for the end.
"""

from __future__ import annotations

import queue
import sqlite3
import statistics
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from benchmarks import floors
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import Installation
from benchmarks.throughput import PLAIN

GAP_S = 0.25
WORKERS = 2
_SCHEMA = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL, exit_code INTEGER)"
_INSERT = "INSERT INTO jobs (state) VALUES ('ready')"
_CLAIM = "UPDATE jobs SET state = 'running' WHERE id = ? AND state = 'ready'"
_FINISH = "UPDATE jobs SET state = 'done', exit_code = 0 WHERE id = ?"


class BareQueue:
    """A queue in SQLite with threads that run ``/bin/true``; a context manager."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", _SCHEMA):
            self._db.execute(statement)
        self._lock = threading.Lock()
        self._ready = queue.SimpleQueue[int | None]()
        self._ended = queue.SimpleQueue[int]()
        self._threads = [threading.Thread(target=self._work) for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()
        self._db.close()

    def seconds(self, count: int, gap_s: float) -> list[float]:
        """Return the seconds from each submit to its end, with the system idle before."""
        times = []
        for _ in range(count):
            time.sleep(gap_s)
            start = time.monotonic()
            self._ready.put(self._commit(_INSERT))
            self._ended.get()
            times.append(time.monotonic() - start)
        return times

    def _work(self) -> None:
        while (job := self._ready.get()) is not None:
            self._commit(_CLAIM, job)
            floors.spawn_true()
            self._commit(_FINISH, job)
            self._ended.put(job)

    def _commit(self, sql: str, *values: int) -> int:
        with self._lock:
            return int(self._db.execute(sql, values).lastrowid or 0)


class AgainstBare(Group):
    """Both in turn, in blocks, with idle gaps."""

    goals = (
        Goal("P6", "submit to end p50 when idle, vs the same in one process", 2.6, 1.7),
        Goal("P6", "submit to end p95 when idle, vs own p50", 2, 2),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start both, and let each run some jobs."""
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN))
        self._bare = stack.enter_context(BareQueue(self.plan.root / "bare.db"))
        self._jobs(5)
        self._bare.seconds(5, 0)

    def round(self) -> list[Reading]:
        """Blocks of ten."""
        bare, own = list[float](), list[float]()
        for _ in range(self.plan.amount(3, 2)):
            bare += self._bare.seconds(10, GAP_S)
            own += self._jobs(10)
        floor, half, late = (
            1000 * seconds
            for seconds in (statistics.median(bare), statistics.median(own), percentile(own, 0.95))
        )
        return [
            Reading(half / floor, f"{half:.1f} ms of {floor:.1f} ms"),
            Reading(late / half, f"{late:.1f} ms of {half:.1f} ms"),
        ]

    def _jobs(self, count: int) -> list[float]:
        return own_seconds(self._client, self._installation, count, GAP_S)


def own_seconds(
    client: ClientProcess, installation: Installation, count: int, gap_s: float
) -> list[float]:
    """Return the seconds from each submit of ``/bin/true`` to its end, one at a time."""
    [times] = client.ask(
        "latencies", targets=[installation.target], argv=[floors.TRUE], count=count, gap_s=gap_s
    )
    return [float(seconds) for seconds in times]


def percentile(times: list[float], share: float) -> float:
    """Return the time that a share of the times does not exceed."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]
