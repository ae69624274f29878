"""huey on SQLite, every commit synced. Imported by its consumer and by the submitter; BENCH_QUEUE is the file."""

from __future__ import annotations

import os
import time
from typing import Any

from huey import SqliteHuey  # type: ignore[import-not-found]

from benchmarks.peers.submitter import run_true

POLL_S = 0.002
BOUND_S = 90.0

app = SqliteHuey("bench", filename=os.environ["BENCH_QUEUE"], fsync=True)
task = app.task()(run_true)


def each(jobs: int) -> None:
    """Submit jobs and wait for all."""
    for result in [task() for _ in range(jobs)]:
        wait(result)


def one() -> None:
    """Submit a job and wait for it."""
    wait(task())


def wait(result: Any) -> None:
    """Wait for a result. It is only looked at: taking it would cost the queue one more commit.

    Raises:
        TimeoutError: None came.
    """
    deadline = time.monotonic() + BOUND_S
    while result.get(preserve=True) is None:
        if time.monotonic() > deadline:
            raise TimeoutError("huey has not run a job")
        time.sleep(POLL_S)
