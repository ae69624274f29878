"""Removes jobs that ended long ago, with their logs.

A job goes in three steps, each of which can be repeated: one transaction takes it out of the database and lists its logs;
the files are deleted; the list is struck out. A death between any two leaves either the whole job or an entry of the
list, with which the next start goes on. So no job ever stands there without its log, and no log stays behind.
"""

from __future__ import annotations

import asyncio
import logging

from daemon.artifacts.blob_store import BlobStore
from daemon.clock import Clock
from daemon.jobs.log_files import LogFiles
from daemon.jobs.models import Excess
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from daemon.server.retention_limits import RetentionLimits
from daemon.server.signals import Signals

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
BATCH = 100
"""Jobs of one transaction, so that the other writers wait for milliseconds only."""
CONTENT_SWEEPS = 60
"""Contents of outputs are looked through once in so many sweeps: all of them are, and none goes before it has rested."""
DAY_US = 86_400_000_000


class Retention:
    """One per server; ``run`` is its task for as long as the server serves."""

    def __init__(  # noqa: PLR0913 - the parts of one server, joined once
        self,
        *,
        store: JobStore,
        logs: LogFiles,
        blobs: BlobStore,
        signals: Signals,
        clock: Clock,
        limits: RetentionLimits,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._store = store
        self._logs = logs
        self._blobs = blobs
        self._signals = signals
        self._clock = clock
        self._limits = limits
        self._interval_s = interval_s
        self._sweeps = 0

    async def run(self) -> None:
        """Look every interval until cancelled, at once for the first time. What fails is logged and tried again."""
        while True:
            try:
                await self.sweep()
            except Exception:
                # Whatever it is: the disk would fill up without anybody noticing.
                logger.exception("old jobs cannot be removed", extra={"action": "sweep_failed"})
            await asyncio.sleep(self._interval_s)

    async def sweep(self) -> None:
        """Remove what is too much now, and the logs that an earlier server left."""
        await self._delete_logs()
        excess = await self._excess()
        total = 0
        while excess != Excess():
            removed = await self._store.remove_ended(excess, self._signals.log_readers(), BATCH)
            if not removed.jobs:
                break
            total += removed.jobs
            excess = excess._replace(
                jobs=max(0, excess.jobs - removed.jobs),
                log_bytes=max(0, excess.log_bytes - removed.log_bytes),
            )
            await self._delete_logs()
        if self._sweeps % CONTENT_SWEEPS == 0:
            await self._delete_contents()
        self._sweeps += 1
        if total:
            logger.info("old jobs were removed", extra={"action": "jobs_removed", "jobs": total})

    async def _excess(self) -> Excess:
        limits = self._limits
        ended = [await self._store.count(state) for state in JobState if state.final]
        log_bytes = await self._store.log_bytes() if limits.max_log_bytes else 0
        age_us = limits.max_age_days * DAY_US
        return Excess(
            before_us=self._clock.now_us() - age_us if age_us else 0,
            jobs=max(0, sum(ended) - limits.max_jobs) if limits.max_jobs else 0,
            log_bytes=max(0, log_bytes - limits.max_log_bytes),
        )

    async def _delete_logs(self) -> None:
        while removed := await self._store.removed_logs(BATCH):
            await asyncio.to_thread(self._delete, [(log.job_id, log.attempts) for log in removed])
            await self._store.forget_removed_logs([log.job_id for log in removed])

    async def _delete_contents(self) -> None:
        """Delete the contents of outputs to which no job refers any more."""
        now_s = self._clock.now_us() / 1e6
        resting = await asyncio.to_thread(list, self._blobs.resting(now_s))
        for paths in resting:
            used = await self._store.referenced({path.name for path in paths})
            unused = [path for path in paths if path.name not in used]
            await asyncio.to_thread(self._blobs.remove_resting, unused, now_s)

    def _delete(self, logs: list[tuple[str, int]]) -> None:
        for job_id, attempts in logs:
            self._logs.remove(job_id, attempts)
