"""The jobs of the memory store that wait to be claimed, and what holds some of them back."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable

from daemon.jobs.labels import matches
from daemon.jobs.models import AgentOffer, Job
from daemon.jobs.outside import does_without_container
from daemon.jobs.queue_keys import group_key, is_served, queue_key
from daemon.jobs.states import JobState

_Entry = tuple[int, int]
"""``(-priority, seq)``"""


class MemoryQueue:
    """One per memory store.

    A job that its group holds back is passed over by each claim that meets it, which the SQLite store never does:
    here it is the behaviour that counts.
    """

    def __init__(self, job_at: Callable[[int], Job | None]) -> None:
        self._job_at = job_at
        # One heap for each set of labels, as in the SQLite store's index. A job that left PENDING by a cancel stays in
        # its heap until it comes to the top.
        self._heaps: dict[str, list[_Entry]] = {}
        self.holding: Counter[str] = Counter()
        """How many jobs of each group run."""

    def moved(self, before: Job | None, job: Job, seq: int) -> None:
        """Follow a change of a job; called for each."""
        group = group_key(job.spec)
        if group is not None:
            was = before is not None and before.state.leased
            self.holding[group] += job.state.leased - was
        if _is_queued(job):
            heap = self._heaps.setdefault(queue_key(job.spec), [])
            heapq.heappush(heap, (-job.spec.priority, seq))

    def is_held_back(self, job: Job) -> bool:
        """Tell whether the group of a waiting job has no room for it."""
        group, limits = group_key(job.spec), job.spec.concurrency
        return limits is not None and self.holding[group or ""] >= limits.limit

    def take(self, offer: AgentOffer, start: Callable[[Job], None], limit: int) -> None:
        """Call ``start``, which makes it RUNNING, with each of the best jobs for an offer."""
        heaps = [
            heap
            for key, heap in self._heaps.items()
            if is_served(key, offer.projects) and matches(key, offer.labels)
        ]
        held_back = []
        taken = 0
        while taken < limit and (heap := self._best(heaps)) is not None:
            entry = heapq.heappop(heap)
            job = self._job_at(entry[1])
            if job is None:
                continue  # never: those were dropped by the search
            if self.is_held_back(job) or not _is_offered(job, offer):
                held_back.append((heap, entry))
                continue
            start(job)
            taken += 1
        for heap, entry in held_back:
            heapq.heappush(heap, entry)

    def ahead(self, job: Job, seq: int) -> int:
        """Count the jobs with the same labels that come before one and may be claimed; of a lane, the best."""
        lanes = set()
        count = 0
        for entry in sorted(self._heaps.get(queue_key(job.spec), ())):
            if entry >= (-job.spec.priority, seq):
                break
            other = self._job_at(entry[1])
            if other is None or not _is_queued(other) or self.is_held_back(other):
                continue
            if other.spec.concurrency not in lanes:
                count += 1
            if other.spec.concurrency is not None:
                lanes.add(other.spec.concurrency)
        return count

    def _best(self, heaps: list[list[_Entry]]) -> list[_Entry] | None:
        for heap in heaps:
            while heap and not _is_queued(self._job_at(heap[0][1])):
                heapq.heappop(heap)
        return min((heap for heap in heaps if heap), default=None)


def _is_offered(job: Job, offer: AgentOffer) -> bool:
    return offer.outside is None or does_without_container(job.spec, offer.outside)


def _is_queued(job: Job | None) -> bool:
    return job is not None and job.state is JobState.PENDING and job.ready_us is None
