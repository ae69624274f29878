"""Finds every place where a registered pattern stands in a buffer, overlapping ones included.

Two engines give the same answers: an Aho-Corasick automaton (``ahocorasick_rs``), and a fallback
from the standard library for hosts without its wheel. Leftmost-only search, whatever the order of
the patterns, leaves the tail of an overlapping secret readable, so both report all occurrences.
An engine is immutable and may be used by many threads at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol

Span = tuple[int, int]
"""Start and end (exclusive) of one occurrence."""

HEAD_BYTES = 4
"""Prefix by which candidates are found before they are compared whole."""

FIRST_PASS_MAX_PATTERNS = 100
"""Above this a leftmost search is no faster than the overlapping one and only costs memory."""

CUT_TAIL_MIN_BYTES = 8
"""A shorter start of a secret at the very end of a stream is too often an innocent word."""


class MaskEngine(Protocol):
    """What a stream needs to know about a buffer. Called once or twice per chunk, concurrently."""

    name: str
    """Which implementation it is, for diagnostics."""

    def find(self, data: bytes) -> list[Span]:
        """Return every occurrence of every pattern, sorted by start, then end."""

    def hold(self, data: bytes) -> int:
        """Return the smallest index from which the rest could still grow into a pattern.

        The length of ``data`` when nothing has to be held back.
        """

    def cut_tail(self, data: bytes) -> int:
        """Return where a secret starts that the end of the stream cut off after half of it or more.

        The length of ``data`` when there is none.
        """


def compile_engine(patterns: Iterable[bytes], *, automaton: bool = True) -> MaskEngine:
    """Build the fastest engine that this host has.

    Args:
        patterns: Non-empty byte strings; at least one.
        automaton: False takes the standard library even where the automaton is installed.
    """
    ordered = sorted(set(patterns))
    if automaton:
        try:
            return _AutomatonEngine(ordered)
        except ImportError:
            pass
    return _RegexEngine(ordered)


class _Prefixes:
    """Answers what an unfinished end of a buffer could become; the same for both engines."""

    def __init__(self, patterns: list[bytes]) -> None:
        self._longest = max(map(len, patterns))
        self._by_head: dict[bytes, list[bytes]] = {}
        for pattern in patterns:
            if len(pattern) > HEAD_BYTES:
                self._by_head.setdefault(pattern[:HEAD_BYTES], []).append(pattern)
        self._short = frozenset(
            pattern[:size]
            for pattern in patterns
            for size in range(1, min(HEAD_BYTES, len(pattern)))
        )
        self._heads = _alternation(self._by_head) if self._by_head else None

    def hold(self, data: bytes) -> int:
        size = len(data)
        for start, pattern in self._open_ends(data):
            if len(pattern) > size - start:
                return start
        for length in range(min(HEAD_BYTES - 1, size), 0, -1):
            if data[size - length :] in self._short:
                return size - length
        return size

    def cut_tail(self, data: bytes) -> int:
        size = len(data)
        for start, pattern in self._open_ends(data):
            seen = size - start
            if CUT_TAIL_MIN_BYTES <= seen < len(pattern) <= 2 * seen:
                return start
        return size

    def _open_ends(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield each start in order with a pattern that begins with all the rest of the data."""
        if self._heads is None:
            return
        window = max(0, len(data) - self._longest + 1)
        found = self._heads.search(data, window)
        while found:
            start = found.start()
            rest = data[start:]
            for pattern in self._by_head[found.group()]:
                if pattern.startswith(rest):
                    yield start, pattern
            found = self._heads.search(data, start + 1)


class _AutomatonEngine:
    """Aho-Corasick in compiled code; releases the interpreter lock while it searches."""

    name = "ahocorasick_rs"

    def __init__(self, patterns: list[bytes]) -> None:
        # Loaded with the first secret only, so that importing the masker stays cheap.
        from ahocorasick_rs import BytesAhoCorasick, MatchKind  # noqa: PLC0415

        self._longest = max(map(len, patterns))
        self._prefixes = _Prefixes(patterns)
        self._all = BytesAhoCorasick(patterns)
        # The leftmost automaton skips ahead at gigabytes a second, the overlapping one cannot.
        self._first = (
            BytesAhoCorasick(patterns, matchkind=MatchKind.LeftmostLongest)
            if len(patterns) <= FIRST_PASS_MAX_PATTERNS
            else None
        )

    def find(self, data: bytes) -> list[Span]:
        if self._first is None:
            return self._overlapping(data)
        hits = self._first.find_matches_as_indexes(data)
        if not hits:
            return []
        if len(hits) * 2 * self._longest > len(data):
            return self._overlapping(data)
        # Every occurrence that was not reported starts inside one that was: had it started
        # between two hits, the search would have stopped there.
        spans = []
        for _, start, end in hits:
            window = data[start : end + self._longest - 1]
            for _, first, last in self._all.find_matches_as_indexes(window, overlapping=True):
                if start + first < end:
                    spans.append((start + first, start + last))
        spans.sort()
        return spans

    def hold(self, data: bytes) -> int:
        return self._prefixes.hold(data)

    def cut_tail(self, data: bytes) -> int:
        return self._prefixes.cut_tail(data)

    def _overlapping(self, data: bytes) -> list[Span]:
        hits = self._all.find_matches_as_indexes(data, overlapping=True)
        return sorted((start, end) for _, start, end in hits)


class _RegexEngine:
    """The fallback: a regular expression over the heads, then a whole comparison."""

    name = "standard library"

    def __init__(self, patterns: list[bytes]) -> None:
        self._prefixes = _Prefixes(patterns)
        self._by_head: dict[bytes, list[bytes]] = {}
        for pattern in patterns:
            self._by_head.setdefault(pattern[:HEAD_BYTES], []).append(pattern)
        self._lengths = sorted({len(head) for head in self._by_head})
        self._heads = _alternation(self._by_head)

    def find(self, data: bytes) -> list[Span]:
        spans: list[Span] = []
        found = self._heads.search(data)
        while found:
            start = found.start()
            # A head of one byte hides the longer heads at the same place from the expression.
            for length in self._lengths:
                candidates = self._by_head.get(data[start : start + length], ())
                spans.extend(
                    (start, start + len(pattern))
                    for pattern in candidates
                    if data.startswith(pattern, start)
                )
            found = self._heads.search(data, start + 1)
        spans.sort()
        return spans

    def hold(self, data: bytes) -> int:
        return self._prefixes.hold(data)

    def cut_tail(self, data: bytes) -> int:
        return self._prefixes.cut_tail(data)


def _alternation(heads: Iterable[bytes]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(re.escape(head) for head in sorted(heads)), re.DOTALL)
