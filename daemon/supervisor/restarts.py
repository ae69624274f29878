"""When a dead child is started again, and when no more."""

from __future__ import annotations

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that was up for so long starts with a clean slate."""
QUICK_S = 10.0
"""A process that was up for less died quickly."""
MAX_QUICK_DEATHS = 5


class RestartBudget:
    """Counts the deaths of one process. No clock inside: the caller says how long it was up."""

    def __init__(self, first_delay_s: float = FIRST_DELAY_S) -> None:
        self._first_delay_s = first_delay_s
        self._deaths = 0
        self._quick_deaths = 0

    def delay_after_death(self, up_s: float) -> float | None:
        """Return the seconds until the next start, or None when there must be none; once per death.

        The first restart comes at once, because one crash is most often an accident; then the
        delay doubles from one second to thirty.
        """
        if up_s >= STEADY_S:
            self._deaths = self._quick_deaths = 0
        self._deaths += 1
        if up_s < QUICK_S:
            self._quick_deaths += 1
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            return None
        if self._deaths == 1:
            return 0.0
        return float(min(self._first_delay_s * 2 ** min(self._deaths - 2, 16), MAX_DELAY_S))
