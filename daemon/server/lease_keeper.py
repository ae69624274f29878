"""Renews leases by what is sent for their attempts, where no Work stream does: logs and outputs.

An agent-runner that starts after a crash delivers what the one before it left before it registers, because that ends
those leases. A large log or large outputs may take longer than a lease lasts.
"""

from __future__ import annotations

from collections.abc import Callable

from daemon.clock import Clock
from daemon.jobs.leases import MICROSECONDS
from daemon.jobs.models import LeaseRef
from daemon.jobs.store import JobStore


class LeaseKeeper:
    """One per server."""

    def __init__(
        self,
        store: JobStore,
        clock: Clock,
        is_renewed: Callable[[LeaseRef], bool],
        *,
        lease_s: float,
        renew_s: float,
    ) -> None:
        """Keep nothing yet.

        Args:
            store: Has the leases.
            clock: The store's.
            is_renewed: Tells whether an open Work stream has a lease.
            lease_s: How long a lease lasts.
            renew_s: How long nothing is done for one that was renewed here.
        """
        self._store = store
        self._clock = clock
        self._is_renewed = is_renewed
        self._lease_s = lease_s
        self._renew_us = int(renew_s * MICROSECONDS)

    async def heard(self, lease: LeaseRef, due_us: int) -> int:
        """Renew a lease if it is time; return when to do so again. Called per message, after the lease was checked.

        Args:
            lease: One that is held no more stays so: whoever writes for it is told.
            due_us: What the call before returned for this stream; 0 at first.
        """
        now_us = self._clock.steady_us()
        if now_us < due_us:
            return due_us
        if not self._is_renewed(lease):
            for attempt in await self._store.attempts(lease.job_id):
                if attempt.number == lease.attempt:
                    await self._store.renew(attempt.agent, [lease], self._lease_s)
        return now_us + self._renew_us
