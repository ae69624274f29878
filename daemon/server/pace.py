"""How fast the attempts of one agent-runner end, which says how many it may be given ahead of its slots.

Between the end of an attempt and the next one in its slot lie a report, a commit and an assignment: as long as a short job takes
itself. So where slots come free every few milliseconds, the jobs for the next few are sent ahead (their number is a credit, as in
AMQP's ``basic.qos``). Where jobs are long nothing is ahead: a job in the queue can still be taken by anybody, and by priority.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WITHIN_S = 0.05
"""What "the next few" are: as many slots come free from now on as did in this time, which is what an agent-runner lets one wait."""
MOST = 16
"""Ahead of the slots of one agent-runner; more would bring nothing where a job takes a millisecond."""


class Pace:
    """That of one start of an agent-runner. Used on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a pace. ``clock`` tells seconds."""
        self._clock = clock
        self._ends: deque[float] = deque()

    def ended(self) -> None:
        """Note that an attempt has ended by itself; called per report."""
        self._ends.append(self._clock())
        self._forget()

    def stalled(self) -> None:
        """Note that an attempt has come back that was given ahead; called per such report."""
        self._ends.clear()

    def ahead(self, slots: int) -> int:
        """Return how many attempts to give beyond the slots now; called per claim.

        Only ends beyond one per slot count: they are of jobs that have begun and ended in this time. Long jobs that have begun
        together also end together, and are no pace.
        """
        self._forget()
        return min(MOST, max(0, len(self._ends) - slots))

    def _forget(self) -> None:
        oldest = self._clock() - WITHIN_S
        while self._ends and self._ends[0] < oldest:
            self._ends.popleft()
