"""Finds every place of a buffer that registered patterns cover, and where an unfinished one begins.

Patterns are looked for by their heads, short enough for one quick automaton whatever the number of patterns; what
begins with a head is compared whole. Leftmost-only search, whatever the order of the patterns, would leave the tail of
an overlapping secret readable. An engine is immutable and may be used by many threads at once.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sandbox.masking.finder import USEFUL_WORD_BYTES, compile_finder

Span = tuple[int, int]
"""Start and end (exclusive) of something to hide."""

HEAD_BYTES = USEFUL_WORD_BYTES
_FAMILY_BYTES = 24
"""Patterns that begin with the same so many bytes have one head, as long as they have in common: fewer are compiled sooner."""
_BEGINNING_BYTES = 4
"""Of a head, enough to tell that hardly any begins somewhere."""
CUT_TAIL_MIN_BYTES = 8
"""A shorter start of a secret at the very end of a stream is too often an innocent word."""
_FIRST_BLOCK_BYTES = 1 << 10
_GROWTH = 16
_SPARSE_BYTES = 16
"""With fewer hits than one in so many bytes, the next search takes more at once."""


class Findings(NamedTuple):
    """What an engine says about one buffer."""

    spans: list[Span]
    """In order of their starts; together they cover exactly what all occurrences of all patterns cover."""
    hold: int
    """The smallest index from which the rest could still grow into a pattern; the buffer's length if there is none."""


class MaskEngine:
    """A compiled set of patterns."""

    def __init__(self, patterns: Iterable[bytes], *, automaton: bool = True) -> None:
        """Compile patterns: at least one, none of them empty.

        Args:
            patterns: What to find.
            automaton: False takes the standard library even where the automaton is installed.
        """
        by_beginning: dict[bytes, list[bytes]] = {}
        for pattern in sorted(set(patterns)):
            by_beginning.setdefault(pattern[:_FAMILY_BYTES], []).append(pattern)
        self._families = [_Family(family) for family in by_beginning.values()]
        self._heads = [family.head for family in self._families]
        self._longest = max(family.longest for family in self._families)
        self._first_bytes = frozenset(head[0] for head in self._heads)
        self._beginnings = {
            head[:size] for head in self._heads for size in range(1, _BEGINNING_BYTES + 1)
        }
        self.name, self._find = compile_finder(self._heads, automaton=automaton)

    def scan(
        self, data: bytes, covered: int = 0, *, final: bool = False, calm: bool = False
    ) -> Findings:
        """Return what is hidden in a buffer and what has to wait. Called once per chunk.

        Args:
            data: The buffer.
            covered: So many bytes at its start are hidden already, whatever is found.
            final: Nothing follows, so nothing waits.
            calm: Hardly anything is expected, so all is searched at once.
        """
        size = len(data)
        hold = size if final else self._unfinished_head(data)
        spans: list[Span] = []
        begin, block = 0, size if calm else _FIRST_BLOCK_BYTES
        while begin < size:
            end = begin + block
            hits = self._find(data[begin : end + HEAD_BYTES - 1])
            for word, offset, _ in hits:
                start = begin + offset
                if start >= end:
                    break
                family = self._families[word]
                if start < hold and start + family.longest > size and not final:
                    hold = start if family.may_begin(data[start:]) else hold
                if start >= hold and start > covered:
                    return Findings(spans, hold)  # it waits too
                if start + family.longest > covered:
                    stop = family.longest_match(data, start)
                    if stop > covered:
                        spans.append((start, stop))
                        covered = stop
            # One endless match has a hit at nearly every byte: what it covers is not searched.
            begin = max(end, covered - self._longest + 1)
            if len(hits) * _SPARSE_BYTES < block:
                block *= _GROWTH
        return Findings(spans, hold)

    def cut_tail(self, data: bytes) -> int:
        """Return where a secret starts that the end of a stream cut off after half of it or more.

        The length of ``data`` when there is none.
        """
        size = len(data)
        for word, start, _ in self._find(data):
            if size - start >= CUT_TAIL_MIN_BYTES and self._families[word].is_half(data[start:]):
                return start
        for start in range(max(0, size - HEAD_BYTES + 1), size - CUT_TAIL_MIN_BYTES + 1):
            if any(family.is_half(data[start:]) for family in self._begun_with(data[start:])):
                return start
        return size

    def _unfinished_head(self, data: bytes) -> int:
        size = len(data)
        earliest = max(0, size - HEAD_BYTES + 1)
        for start, first in enumerate(data[earliest:], earliest):
            if (
                first in self._first_bytes
                and data[start : start + _BEGINNING_BYTES] in self._beginnings
                and any(self._begun_with(data[start:]))
            ):
                return start
        return size

    def _begun_with(self, text: bytes) -> Iterator[_Family]:
        """Yield the families whose heads begin with the whole of ``text`` and go on."""
        for index in range(bisect_right(self._heads, text), len(self._heads)):
            if not self._heads[index].startswith(text):
                return
            yield self._families[index]


class _Family:
    """The patterns with one head, sorted: those that a text begins with are found by bisection."""

    def __init__(self, patterns: list[bytes]) -> None:
        self._patterns = patterns
        self.head = _shared(patterns[0][:HEAD_BYTES], patterns[-1])
        self.longest = max(map(len, patterns))

    @functools.cached_property
    def _periods(self) -> dict[int, int]:
        """As far as they were needed, by the index of the pattern."""
        return {}

    @functools.cached_property
    def _inner(self) -> list[int]:
        """Of each pattern, the next shorter one that it begins with. Made with the first hit: most families have none."""
        links: list[int] = []
        for index, pattern in enumerate(self._patterns):
            inner = index - 1
            while inner >= 0 and not pattern.startswith(self._patterns[inner]):
                inner = links[inner]
            links.append(inner)
        return links

    def longest_match(self, data: bytes, start: int) -> int:
        """Return where the longest pattern ends that stands at ``start``; ``start`` if none does.

        A pattern that overlaps itself and is repeated so ends where the last repetition does.
        """
        text = data[start : start + self.longest]
        index = bisect_right(self._patterns, text) - 1
        while index >= 0 and not text.startswith(self._patterns[index]):
            index = self._inner[index]
        if index < 0:
            return start
        end = start + len(self._patterns[index])
        period = self._periods.get(index)
        if period is None:
            period = self._periods[index] = _period(self._patterns[index])
        return _end_of_run(data, end, period) if period else end

    def may_begin(self, text: bytes) -> bool:
        """Tell whether a pattern begins with the whole of ``text`` and goes on."""
        index = bisect_right(self._patterns, text)
        return index < len(self._patterns) and self._patterns[index].startswith(text)

    def is_half(self, text: bytes) -> bool:
        """Tell whether a pattern begins with the whole of ``text`` and is at most twice as long."""
        index = bisect_right(self._patterns, text)
        while index < len(self._patterns) and self._patterns[index].startswith(text):
            if len(self._patterns[index]) <= 2 * len(text):
                return True
            index += 1
        return False


def _shared(some: bytes, other: bytes) -> bytes:
    """Return what two texts begin with."""
    while not other.startswith(some):
        some = some[:-1]
    return some


def _period(pattern: bytes) -> int:
    """Return by how much a pattern can be shifted onto itself, if by no more than half of it; else 0."""
    half = len(pattern) // 2
    # Shifted onto itself, its first half stands again at the shift. Only the first such place can be the one: had the
    # pattern a greater period too, up to where the smaller one breaks both would hold, and so would the smaller there.
    shift = pattern.find(pattern[: len(pattern) - half], 1)
    return shift if 0 < shift <= half and pattern.startswith(pattern[shift:]) else 0


def _end_of_run(data: bytes, end: int, period: int) -> int:
    """Return where the repetition stops that reaches up to ``end``."""
    unit = data[end - period : end]
    step = 1
    # Doubled as long as it fits, then halved: few comparisons, however long the run is.
    while step:
        block = unit * step
        if data.startswith(block, end):
            end += len(block)
            step *= 2
        else:
            step //= 2
    return end
