"""Ends the leases whose time is over. Sleeps without a timer while nothing is leased.

A server that stood still (SIGSTOP, a frozen container or machine) finds leases over that were renewed in time: the
renewals wait in its sockets. It notices by its own lateness and gives every live lease a full term, as after a start.
"""

from __future__ import annotations

import asyncio
import logging

from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from daemon.server.config import LEASE_S
from daemon.server.dispatcher import Dispatcher

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
LATE_S = 5.0
"""A look that comes so much later than it was due says nothing of agent-runners, only of this process."""


class Reaper:
    """One per server; ``run`` is its task for as long as the server serves."""

    def __init__(
        self,
        store: JobStore,
        dispatcher: Dispatcher,
        interval_s: float = INTERVAL_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._interval_s = interval_s
        self._lease_s = lease_s
        self._owed_s = 0.0
        """How long the server stood still, until every lease has been given its full term for it."""

    async def run(self) -> None:
        """Look every interval until cancelled. What fails is logged and tried again."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval_s
            await asyncio.sleep(self._interval_s)
            late_s = loop.time() - due
            if late_s > LATE_S:
                self._owed_s += late_s
            try:
                if self._owed_s:
                    await self._forgive()
                await self._reap()
                self._dispatcher.leased.clear()
                idle = await self._nothing_leased()
            except Exception:
                # Whatever it is: without a reaper no lost job would ever run again.
                logger.exception("leases cannot be checked", extra={"action": "reap_failed"})
                continue
            if idle:
                await self._dispatcher.leased.wait()

    async def _forgive(self) -> None:
        await self._store.extend_all_leases(self._lease_s)
        late_s, self._owed_s = self._owed_s, 0.0
        logger.warning(
            "the server stood still; every live lease has a full term again",
            extra={"action": "leases_extended", "late_s": round(late_s, 1)},
        )

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
