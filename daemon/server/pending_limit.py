"""The bound on waiting jobs, kept without counting the queue at every submit."""

from __future__ import annotations

from daemon.errors import QueueFullError
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore


class PendingLimit:
    """Grants places in the queue. One per server; called per submit.

    Counts the queue only when the places of the last count are used up: jobs leave it without telling, so what is
    left of a count is never too much, but for the few that come back after a loss.
    """

    def __init__(self, store: JobStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._places = 0

    async def take(self, jobs: int) -> None:
        """Take places for some jobs.

        Raises:
            QueueFullError: There are not enough.
        """
        if self._places < jobs:
            self._places = self._limit - await self._store.count(JobState.PENDING)
        if self._places < jobs:
            raise QueueFullError(
                f"the queue holds {self._limit - self._places} of at most {self._limit} waiting jobs; "
                "submit again when some have run"
            )
        self._places -= jobs
