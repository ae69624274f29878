"""Ends the leases whose time is over. Sleeps without a timer while nothing is leased."""

from __future__ import annotations

import asyncio
import logging

from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from daemon.server.dispatcher import Dispatcher

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0


class Reaper:
    """One per server; ``run`` is its task for as long as the server serves."""

    def __init__(
        self, store: JobStore, dispatcher: Dispatcher, interval_s: float = INTERVAL_S
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._interval_s = interval_s

    async def run(self) -> None:
        """Look every interval until cancelled. What fails is logged and tried again."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._reap()
                self._dispatcher.leased.clear()
                idle = await self._nothing_leased()
            except Exception:
                # Whatever it is: without a reaper no lost job would ever run again.
                logger.exception("leases cannot be checked", extra={"action": "reap_failed"})
                continue
            if idle:
                await self._dispatcher.leased.wait()

    async def _reap(self) -> None:
        jobs = await self._store.expire_leases()
        if jobs:
            logger.warning(
                "leases have expired", extra={"action": "leases_expired", "jobs": len(jobs)}
            )
            await self._dispatcher.lost(jobs)

    async def _nothing_leased(self) -> bool:
        for state in JobState:
            if state.leased and await self._store.count(state):
                return False
        return True
