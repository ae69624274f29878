"""procrastinate on PostgreSQL. Imported by its worker and by the submitter; BENCH_QUEUE says how to connect.

It has no results: the end is the status of the job's row, which the submitter looks at.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Any

import psycopg  # type: ignore[import-not-found]
from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]

from benchmarks.peers.submitter import run_true

POLL_S = 0.002
BOUND_S = 90.0
IN_FLIGHT = 16
_OPEN = "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
_FAILED = "SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'"

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_QUEUE"]))
task = app.task(name="run_true")(run_true)


class Session:
    """The submitter's loop and its connections; one per process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(app.open_async())
        self._db: Any = self._loop.run_until_complete(
            psycopg.AsyncConnection.connect(os.environ["BENCH_QUEUE"], autocommit=True)
        )

    def run(self, jobs: int) -> None:
        """Submit jobs, several at a time, and wait for all.

        Raises:
            RuntimeError: One did not succeed.
        """
        self._loop.run_until_complete(asyncio.wait_for(self._run(jobs), BOUND_S))

    async def _run(self, jobs: int) -> None:
        numbers = iter(range(jobs))

        async def submit() -> None:
            for _ in numbers:
                await task.defer_async()

        await asyncio.gather(*(submit() for _ in range(min(jobs, IN_FLIGHT))))
        while await self._count(_OPEN):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(POLL_S)
        if await self._count(_FAILED):
            raise RuntimeError("a job did not succeed")

    async def _count(self, query: str) -> int:
        cursor = await self._db.execute(query)
        return int((await cursor.fetchone())[0])


session = cache(Session)


def each(jobs: int) -> None:
    """Submit jobs and wait for all."""
    session().run(jobs)


def one() -> None:
    """Submit a job and wait for it."""
    session().run(1)
