"""What was made of the last few values, for values that are used again but cannot be hashed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_KNOWN = 64
MAX_KNOWN_BYTES = 1024
"""What is larger is made each time, so that little is remembered."""


class Recent(Generic[K, V]):
    """Makes something of a value, once for the same object; neither is changed. May be called from any thread."""

    def __init__(self, make: Callable[[K], V], size: Callable[[V], int]) -> None:
        """Begin empty; ``size`` tells how many bytes what was made takes."""
        self._make = make
        self._size = size
        self._known: dict[int, tuple[K, V]] = {}
        """By the address of the value, which is kept, so that nothing else comes to be there."""

    def of(self, value: K) -> V:
        """Return what is made of a value."""
        found = self._known.get(id(value))
        if found is not None:
            return found[1]
        made = self._make(value)
        if self._size(made) <= MAX_KNOWN_BYTES:
            if len(self._known) >= MAX_KNOWN:
                self._known = {}
            self._known[id(value)] = (value, made)
        return made
