"""The bound on waiting jobs, kept without counting the queue at every submit."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.errors import QueueFullError
from daemon.jobs.models import NewJob
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore

WAITING = (JobState.PENDING, JobState.BLOCKED)


class PendingLimit:
    """Grants places in the queue. One per server; called per submit.

    Counts the queue only when the places of the last count are used up: jobs leave it without telling, so what is
    left of a count is never too much, but for the few that come back after a loss. Places that a submit took and did
    not use, because it was refused or repeated, are free again with the next count.
    """

    def __init__(self, store: JobStore, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._places = 0

    async def take(self, jobs: Sequence[NewJob]) -> None:
        """Take places for some jobs. A job that is known by its request id needs none.

        Raises:
            QueueFullError: There are not enough.
        """
        wanted = len(jobs)
        if self._places < wanted:
            wanted = await self._unknown(jobs)
        if self._places < wanted:
            waiting = [await self._store.count(state) for state in WAITING]
            self._places = self._limit - sum(waiting)
        if self._places < wanted:
            raise QueueFullError(
                f"the queue holds {self._limit - self._places} of at most {self._limit} waiting jobs; "
                "submit again when some have run"
            )
        self._places -= wanted

    async def _unknown(self, jobs: Sequence[NewJob]) -> int:
        named = {job.request_id for job in jobs if job.request_id is not None}
        unnamed = sum(job.request_id is None for job in jobs)
        if not named:
            return unnamed
        return unnamed + len(named - await self._store.known_requests(named))
