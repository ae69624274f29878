"""Sees to jobs that wait: wakes each at its moment, and passes on what the end of one job means for others.

One timer for each clock is set to the next moment, so nothing polls: ``not_before`` is a time of the wall clock, the end
of a backoff one of the steady clock.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing

from daemon.clock import Clock
from daemon.jobs.models import NextMoments, QueueChange
from daemon.jobs.store import JobStore
from daemon.server.dispatcher import Dispatcher
from daemon.server.signals import Signals
from daemon.server.wall_alarm import WallAlarm

logger = logging.getLogger(__name__)

BATCH = 1000
"""Jobs woken in one transaction, so that a crowd that is due at once holds nobody up."""
PAUSE_S = 1.0
"""After a failure of the store."""


class QueueKeeper:
    """One per server; listens to the store from the beginning. ``run`` is its task for as long as the server serves."""

    def __init__(
        self, store: JobStore, dispatcher: Dispatcher, signals: Signals, clock: Clock
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._signals = signals
        self._clock = clock
        self._stirred = asyncio.Event()
        store.listen(self._heard)

    async def run(self) -> None:
        """Wake what is due and sleep until the next moment, until cancelled. What fails is logged and tried again."""
        with closing(WallAlarm(self._stirred.set)) as alarm:
            while True:
                self._stirred.clear()
                try:
                    moments = await self._store.wake_due(BATCH)
                except Exception:
                    # Whatever it is: without this task no waiting job would ever start.
                    logger.exception("jobs cannot be woken", extra={"action": "wake_failed"})
                    await asyncio.sleep(PAUSE_S)
                    continue
                await self._sleep(moments, alarm)

    async def _sleep(self, moments: NextMoments, alarm: WallAlarm) -> None:
        wall_us, steady_us = moments.wall_us, moments.steady_us
        alarm.set_in(None if wall_us is None else wall_us - self._clock.now_us())
        if steady_us is None:
            await self._stirred.wait()
            return
        delay_s = (steady_us - self._clock.steady_us()) / 1_000_000
        timer = asyncio.get_running_loop().call_later(delay_s, self._stirred.set)
        try:
            await self._stirred.wait()
        finally:
            timer.cancel()

    def _heard(self, change: QueueChange) -> None:
        for job in change.jobs:
            self._signals.job_changed(job.id)
        if change.claimable:
            self._dispatcher.stir()
        if change.timed:
            self._stirred.set()
