"""Maskers of the sets of secrets that the last jobs had, spelled and compiled, so that the next job waits for neither."""

from __future__ import annotations

import threading

from sandbox.masking.masker import Masker

KEPT_PATTERNS = 24_000
"""Of all sets together; 10,000 of them, which is what 200 secrets come to, take some 35 MB once much output was searched."""


class KeptMaskers:
    """The sets that were used last, as many as there is room for. One per process; may be used by many threads at once."""

    def __init__(self, room: int = KEPT_PATTERNS) -> None:
        """Begin empty."""
        self._room = room
        self._lock = threading.Lock()
        self._maskers: dict[frozenset[str], Masker] = {}

    def of(self, values: frozenset[str]) -> Masker:
        """Return a masker that knows these values, to be copied only. Called once per attempt with kept secrets."""
        with self._lock:
            masker = self._maskers.pop(values, None)
        if masker is None:
            masker = Masker()
            for value in sorted(values):
                masker.add("", value)
            masker.snapshot()
        with self._lock:
            self._maskers[values] = masker  # behind all others: the last to go
            self._make_room()
        return masker

    def _make_room(self) -> None:
        """Forget the sets that were not used for the longest time; never the last one."""
        taken = sum(masker.size for masker in self._maskers.values())
        while taken > self._room and len(self._maskers) > 1:
            oldest = next(iter(self._maskers))
            taken -= self._maskers.pop(oldest).size
