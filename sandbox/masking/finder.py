"""Finds where any of many short byte strings begins in a buffer, overlapping ones included.

Two implementations give the same answer: automatons in compiled code (``ahocorasick_rs``), and a regular
expression for hosts without its wheel. Both may be used by many threads at once.

An automaton for hundreds of words takes one step per byte, whatever it finds. So only every fourth byte is shown to
it, and it looks for every fourth byte of each word, from each of its first four bytes on; what it finds is compared.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from operator import itemgetter

AUTOMATON = "ahocorasick_rs"
LIBRARY = "standard library"
USEFUL_WORD_BYTES = 16
"""Longer words are found no sooner."""
VECTOR_MAX_WORDS = 64
"""Up to so many, a leftmost search looks at many bytes at once; one for all occurrences never does."""
_STRIDES = (4, 3, 2)
_SAMPLE_BYTES = 4
"""Of a word, with a stride; fewer fit innocent text more often."""
_MIN_SAMPLE_BYTES = 3
_WHOLE_SAMPLE_BYTES = 8
"""Of a word, without a stride; more would make the automaton slower."""
_TABLE_AFTER_BYTES = 128
"""For each word. The table that is searched twice as quickly takes five times as long to make: too long for little output."""
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
    if len(words) <= VECTOR_MAX_WORDS:
        return _vector(words)
    for stride in _STRIDES:
        short = [
            number for number, word in enumerate(words) if len(word) < stride * _MIN_SAMPLE_BYTES
        ]
        if not short:
            return _sampled(words, stride)
        if len(short) <= VECTOR_MAX_WORDS:
            rest = sorted(set(range(len(words))) - set(short))
            return _both(
                (short, _vector([words[number] for number in short])),
                (rest, _sampled([words[number] for number in rest], stride)),
            )
    return _sampled(words, 1)


def _both(*parts: tuple[Sequence[int], Finder]) -> Finder:
    """Return what finds the words of several finders, each with the numbers of its words."""

    def finder(data: bytes) -> list[Hit]:
        hits = [
            (numbers[word], start, end)
            for numbers, find in parts
            for word, start, end in find(data)
        ]
        hits.sort(key=_START)
        return hits

    return finder


def _sampled(words: Sequence[bytes], stride: int) -> Finder:
    """Return what looks at one byte of ``stride``."""
    size = _WHOLE_SAMPLE_BYTES if stride == 1 else _SAMPLE_BYTES
    numbers = {word: number for number, word in enumerate(words)}
    # Thousands of words may share a sample, but few lengths: whoever chooses them must not make a search slow.
    samples: dict[bytes, set[tuple[int, int]]] = {}
    for word in words:
        # One of its first bytes is looked at, and each that follows it by a stride.
        for phase in range(stride):
            samples.setdefault(word[phase::stride][:size], set()).add((phase, len(word)))
    find = _every(list(samples))
    owners = list(map(tuple, samples.values()))

    def finder(data: bytes) -> list[Hit]:
        hits = [
            (number, start, end)
            for sample, place, _ in find(data[::stride])
            for phase, length in owners[sample]
            if (start := place * stride - phase) >= 0
            and (end := start + length) <= len(data)
            and (number := numbers.get(data[start:end])) is not None
        ]
        hits.sort(key=_START)
        return hits

    return finder


def _every(words: Sequence[bytes]) -> Finder:
    """Return what finds all occurrences, in no order."""
    # Loaded with the first use only, so that importing the masker stays cheap.
    from ahocorasick_rs import BytesAhoCorasick, Implementation  # noqa: PLC0415

    def compiled(implementation: Implementation) -> Callable[[bytes, bool], list[Hit]]:
        automaton = BytesAhoCorasick(words, implementation=implementation)
        search: Callable[[bytes, bool], list[Hit]] = automaton.find_matches_as_indexes
        return search

    search = compiled(Implementation.ContiguousNFA)
    left: float = _TABLE_AFTER_BYTES * len(words)

    def finder(data: bytes) -> list[Hit]:
        nonlocal search, left
        if left < 0:
            left = math.inf
            # The words are short, so the table stays small: some MB for thousands.
            search = compiled(Implementation.DFA)
        left -= len(data)
        return search(data, True)

    return finder


def _vector(words: Sequence[bytes]) -> Finder:
    from ahocorasick_rs import BytesAhoCorasick, MatchKind  # noqa: PLC0415 - as above

    some = BytesAhoCorasick(words, matchkind=MatchKind.LeftmostFirst).find_matches_as_indexes
    every = functools.cache(lambda: _every(words))
    longest = max(map(len, words))
    numbers = {word: number for number, word in enumerate(words)}

    @functools.cache
    def inside(word: bytes) -> list[tuple[int, int]]:
        """Return how far from the start of one that was found others could begin, and how long they are."""
        return sorted(
            {
                (offset, len(other))
                for offset in range(len(word))
                for other in words
                if other.startswith(word[offset : offset + len(other)])
            }
        )

    def finder(data: bytes) -> list[Hit]:
        first = some(data)
        if len(first) * 4 * longest > len(data):
            return sorted(every()(data), key=_START)
        # What was not reported starts inside something that was: else the search would have stopped there.
        return [
            (number, begin, end)
            for word, start, _ in first
            for offset, length in inside(words[word])
            if (end := (begin := start + offset) + length) <= len(data)
            and (number := numbers.get(data[begin:end])) is not None
        ]

    return finder


def _expression(words: Sequence[bytes]) -> Finder:
    numbers = {word: number for number, word in enumerate(words)}
    lengths = sorted({len(word) for word in words})
    samples = sorted({word[:_WHOLE_SAMPLE_BYTES] for word in words})
    search = re.compile(b"|".join(map(re.escape, samples)), re.DOTALL).search

    def finder(data: bytes) -> list[Hit]:
        hits: list[Hit] = []
        found = search(data)
        while found:
            start = found.start()
            # The expression stops at the first sample that fits; others may begin at the same place.
            for length in lengths:
                end = start + length
                number = numbers.get(data[start:end]) if end <= len(data) else None
                if number is not None:
                    hits.append((number, start, end))
            found = search(data, start + 1)
        return hits

    return finder
