"""Finds where any of many short byte strings begins in a buffer, overlapping ones included.

Two implementations give the same answer: an automaton in compiled code (``ahocorasick_rs``), and a regular
expression for hosts without its wheel. Both are immutable and may be used by many threads at once.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from operator import itemgetter

AUTOMATON = "ahocorasick_rs"
LIBRARY = "standard library"
VECTOR_MAX_WORDS = 64
"""Up to so many, a leftmost search looks at many bytes at once; one for all occurrences never does."""
_START = itemgetter(1)

Hit = tuple[int, int, int]
"""Which word, where it starts, where it ends."""
Finder = Callable[[bytes], list[Hit]]
"""Returns every occurrence of every word in a buffer, in the order of their starts."""


def compile_finder(words: Sequence[bytes], *, automaton: bool) -> tuple[str, Finder]:
    """Return the name of the best implementation that this host has, and the finder.

    Args:
        words: Distinct and not empty; hits name them by their position.
        automaton: False takes the standard library even where the automaton is installed.
    """
    if automaton:
        try:
            return AUTOMATON, _automaton(words)
        except ImportError:
            pass
    return LIBRARY, _expression(words)


def _automaton(words: Sequence[bytes]) -> Finder:
    # Loaded with the first use only, so that importing the masker stays cheap.
    from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind  # noqa: PLC0415

    @functools.cache
    def every() -> Callable[[bytes, bool], list[Hit]]:
        # The words are short, so the table stays small (some MB for thousands) and is twice as quick as the default.
        automaton = BytesAhoCorasick(words, implementation=Implementation.DFA)
        search: Callable[[bytes, bool], list[Hit]] = automaton.find_matches_as_indexes
        return search

    if len(words) > VECTOR_MAX_WORDS:
        find = every()
        return lambda data: sorted(find(data, True), key=_START)
    some = BytesAhoCorasick(words, matchkind=MatchKind.LeftmostFirst).find_matches_as_indexes
    overhang = max(map(len, words)) - 1

    def finder(data: bytes) -> list[Hit]:
        first = some(data)
        if len(first) * 4 * overhang > len(data):
            return sorted(every()(data, True), key=_START)
        hits: list[Hit] = []
        # What was not reported starts inside something that was: else the search would have stopped there.
        for _, start, end in first:
            window = data[start : end + overhang]
            inside = [hit for hit in every()(window, True) if start + hit[1] < end]
            hits += [(word, start + first, start + last) for word, first, last in inside]
        hits.sort(key=_START)
        return hits

    return finder


def _expression(words: Sequence[bytes]) -> Finder:
    positions = {word: position for position, word in enumerate(words)}
    lengths = sorted({len(word) for word in words})
    search = re.compile(b"|".join(map(re.escape, sorted(words))), re.DOTALL).search

    def finder(data: bytes) -> list[Hit]:
        hits: list[Hit] = []
        found = search(data)
        while found:
            start = found.start()
            # The expression stops at the first word that fits; others may begin at the same place.
            for length in lengths:
                position = positions.get(data[start : start + length])
                if position is not None:
                    hits.append((position, start, start + length))
            found = search(data, start + 1)
        return hits

    return finder
