"""Celery with Redis for broker and results. Imported by its worker and by the submitter; BENCH_QUEUE is the URL."""

from __future__ import annotations

import os

from celery import Celery  # type: ignore[import-not-found]

from benchmarks.peers.submitter import run_true

BOUND_S = 90.0

app = Celery("bench", broker=os.environ["BENCH_QUEUE"], backend=os.environ["BENCH_QUEUE"])
task = app.task(name="run_true")(run_true)


def each(jobs: int) -> None:
    """Submit jobs and wait for all."""
    for result in [task.delay() for _ in range(jobs)]:
        result.get(timeout=BOUND_S)


def one() -> None:
    """Submit a job and wait for it."""
    task.delay().get(timeout=BOUND_S)
