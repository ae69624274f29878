"""Finds where any of many short byte strings begins in a buffer, overlapping ones included.

Two implementations give the same answer: automatons in compiled code (``ahocorasick_rs``), and a regular
expression for hosts without its wheel. Both may be used by many threads at once.

An automaton for hundreds of words takes one step per byte, whatever it finds. So only one byte of several is shown to
it, and it looks for some such bytes of each word, for each place that may be looked at first; what it finds is compared.
They are taken where a word looks least like a log: so the automaton hardly leaves that part of its table that stays in
the cache, and words that are alike have the same looked for.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

AUTOMATON = "ahocorasick_rs"
LIBRARY = "standard library"
USEFUL_WORD_BYTES = 48
"""Longer words are found no sooner."""
VECTOR_MAX_WORDS = 60
"""Up to so many, and the odd ones, a leftmost search looks at many bytes at once; one for all occurrences never does."""
VECTORS_MAX_WORDS = 2 * VECTOR_MAX_WORDS
"""Two such searches, one after the other, are quicker than one for any number of words."""
_SAMPLINGS = ((8, 4), (6, 4), (4, 4), (4, 3), (3, 3), (2, 3))
"""One byte of how many is looked at, and how many such bytes of a word are looked for; fewer fit innocent text more often."""
_WHOLE_SAMPLE_BYTES = 8
"""Of a word of which every byte is looked at; more would make the automaton slower."""
_QUICK_AFTER_BYTES = 1024
"""For each word. What finds in a fifth of the time takes ten times as long to make: too long for little output."""
_TABLE_AFTER_BYTES = 128
"""For each word. The table that is searched twice as quickly takes five times as long to make."""
_COMMON = b" \netaoinsr012dclmup/.-_=:,345fh\"'()[]\t\rgbyw6789vkxjqzETSAINORCDLPMUGFBHWYVKXJQZ"
"""What logs are made of, the most frequent first; all else is rarer."""
_FREQUENCY = bytes(
    len(_COMMON) - _COMMON.find(byte) if byte in _COMMON else 0 for byte in range(256)
)
_ODD_WORDS = tuple(
    bytes(first + place.bit_count() % 2 for place in range(USEFUL_WORD_BYTES))
    for first in (0xF5, 0xF7, 0xF9, 0xFB)
)
"""Searched for with the others, which may all hold one of two or three bytes: these alone would be looked for then, and
logs may be full of them. No text has these bytes, and no shorter one that is repeated has such a word (Thue and Morse)."""
_BEGINNING_BYTES = 4
"""What a vector search looks at, at most."""
_MOST_ALIKE = 16
"""With more words of one beginning a vector search compares all of them wherever it stands."""
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
    if len(words) <= VECTORS_MAX_WORDS and not _crowded(words):
        return _vectors(words)
    first = _sampled(words, words, 1, _starts(words), _small)
    return _later(_QUICK_AFTER_BYTES * len(words), first, lambda: _quick(words))


def _later(after_bytes: int, first: Finder, second: Callable[[], Finder]) -> Finder:
    """Return what finds like ``first``, and once so much was searched like ``second``."""
    find = first
    left: float = after_bytes

    def finder(data: bytes) -> list[Hit]:
        nonlocal find, left
        if left < 0:
            left = math.inf
            find = second()
        left -= len(data)
        return find(data)

    return finder


def _quick(words: Sequence[bytes]) -> Finder:
    """Return what looks at as few bytes as the shortest of the words allow, but for some."""
    for stride, size in _SAMPLINGS:
        short = [word for word in words if len(word) < stride * size]
        # They are few: spellings of one value mostly begin in the same way.
        starts = _starts(short)
        if len(starts) <= VECTOR_MAX_WORDS and not _crowded(starts):
            parts = [_sampled(short, words, 1, starts, _vector)] if short else []
            long = [word for word in words if len(word) >= stride * size]
            if long:
                parts.append(_sampled(long, words, stride, _samples(long, stride, size), _table))
            return _joined(parts)
    return _sampled(words, words, 1, _starts(words), _table)


def _crowded(words: Iterable[bytes]) -> bool:
    """Tell whether a vector search would be slow in text that is full of one beginning."""
    alike = Counter(word[:_BEGINNING_BYTES] for word in words)
    return max(alike.values(), default=0) > _MOST_ALIKE


def _starts(words: Sequence[bytes]) -> dict[bytes, tuple[int, ...]]:
    """Return what is looked for when every byte is looked at, and that it stands at the start of words."""
    return {word[:_WHOLE_SAMPLE_BYTES]: (0,) for word in words}


def _joined(parts: Sequence[Finder]) -> Finder:
    def finder(data: bytes) -> list[Hit]:
        return sorted((hit for find in parts for hit in find(data)), key=_START)

    return parts[0] if len(parts) == 1 else finder


def _samples(words: Sequence[bytes], stride: int, size: int) -> dict[bytes, tuple[int, ...]]:
    """Return what is looked for when one byte of ``stride`` is looked at, and at which places of words it stands.

    One sample of each word for each of its first bytes that may be the first one looked at.
    """
    samples: dict[bytes, tuple[int, ...]] = {}
    alone = [(offset,) for offset in range(max(map(len, words)))]
    for word in words:
        frequency = word.translate(_FREQUENCY)
        behind = len(word) - (size - 1) * stride
        for phase in range(stride):
            firsts = frequency[phase : max(behind, phase + 1) : stride]
            offset = phase + firsts.index(min(firsts)) * stride
            sample = word[offset : offset + size * stride : stride]
            known = samples.setdefault(sample, alone[offset])
            if offset not in known:
                samples[sample] = (*known, offset)
    return samples


def _sampled(
    words: Sequence[bytes],
    all_words: Sequence[bytes],
    stride: int,
    samples: Mapping[bytes, tuple[int, ...]],
    compiled: Callable[[Sequence[bytes]], Finder],
) -> Finder:
    """Return what looks at one byte of ``stride`` for the samples of words, which are some of all."""
    numbers = {word: number for number, word in enumerate(all_words)}
    find = compiled(list(samples))
    offsets_of = list(samples.values())
    # Thousands of words may share a sample, but few places and lengths: whoever chooses them must not make a search slow.
    least = min(map(len, words))
    lengths_of = _lengths(words, least)

    def finder(data: bytes) -> list[Hit]:
        # A word may hold samples of others beside its own.
        hits = {
            (number, start, end)
            for sample, place, _ in find(data[::stride])
            for offset in offsets_of[sample]
            if (start := place * stride - offset) >= 0
            for length in lengths_of.get(data[start : start + least], ())
            if (end := start + length) <= len(data)
            and (number := numbers.get(data[start:end])) is not None
        }
        return sorted(hits, key=_START)

    return finder


def _lengths(words: Sequence[bytes], size: int) -> dict[bytes, tuple[int, ...]]:
    """Return how long the words are that begin with the same so many bytes."""
    lengths: dict[bytes, tuple[int, ...]] = {}
    for word in words:
        known = lengths.get(word[:size], ())
        if len(word) not in known:
            lengths[word[:size]] = (*known, len(word))
    return lengths


def _small(words: Sequence[bytes]) -> Finder:
    """Return what finds all occurrences, in no order; soon made."""
    # Loaded with the first use only, so that importing the masker stays cheap.
    from ahocorasick_rs import BytesAhoCorasick, Implementation  # noqa: PLC0415

    find = BytesAhoCorasick(words, implementation=Implementation.ContiguousNFA)
    return lambda data: find.find_matches_as_indexes(data, True)


def _table(words: Sequence[bytes]) -> Finder:
    """Return what finds all occurrences, in no order, at half the cost; the words are short, so it stays at some MB."""
    from ahocorasick_rs import BytesAhoCorasick, Implementation  # noqa: PLC0415 - as above

    find = BytesAhoCorasick(words, implementation=Implementation.DFA)
    return lambda data: find.find_matches_as_indexes(data, True)


def _leftmost(words: Sequence[bytes]) -> Finder:
    """Return what finds the leftmost ones, by many bytes at once."""
    from ahocorasick_rs import (  # noqa: PLC0415 - as above
        BytesAhoCorasick,
        Implementation,
        MatchKind,
    )

    # What looks at many bytes at once finds whole words, so the slowest automaton, which is the soonest made, does.
    return BytesAhoCorasick(
        words, matchkind=MatchKind.LeftmostFirst, implementation=Implementation.NoncontiguousNFA
    ).find_matches_as_indexes


def _vectors(words: Sequence[bytes]) -> Finder:
    """Return what finds more words than one vector search may have."""
    count = math.ceil(len(words) / VECTOR_MAX_WORDS)
    shares = [range(first, len(words), count) for first in range(count)]

    def renumbered(share: range) -> Finder:
        find = _vector([words[number] for number in share])
        return lambda data: [(share[number], begin, end) for number, begin, end in find(data)]

    return _vector(words) if count == 1 else _joined([renumbered(share) for share in shares])


def _vector(words: Sequence[bytes]) -> Finder:
    searched = [*words, *_ODD_WORDS] if len(words) > 1 else words
    some = _leftmost(searched)
    every = functools.cache(
        lambda: _later(_TABLE_AFTER_BYTES * len(words), _small(words), lambda: _table(words))
    )
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
        most = len(data) // (4 * longest)
        if len(first) > most and sum(word < len(words) for word, _, _ in first) > most:
            return sorted(every()(data), key=_START)
        # What was not reported starts inside something that was: else the search would have stopped there.
        return [
            (number, begin, end)
            for word, start, _ in first
            for offset, length in inside(searched[word])
            if (end := (begin := start + offset) + length) <= len(data)
            and (number := numbers.get(data[begin:end])) is not None
        ]

    return finder


def _expression(words: Sequence[bytes]) -> Finder:
    numbers = {word: number for number, word in enumerate(words)}
    least = min(_WHOLE_SAMPLE_BYTES, *map(len, words))
    lengths_of = _lengths(words, least)
    samples = sorted({word[:_WHOLE_SAMPLE_BYTES] for word in words})
    search = re.compile(b"|".join(map(re.escape, samples)), re.DOTALL).search

    def finder(data: bytes) -> list[Hit]:
        hits: list[Hit] = []
        found = search(data)
        while found:
            start = found.start()
            # The expression stops at the first sample that fits; others may begin at the same place.
            for length in lengths_of[data[start : start + least]]:
                end = start + length
                number = numbers.get(data[start:end]) if end <= len(data) else None
                if number is not None:
                    hits.append((number, start, end))
            found = search(data, start + 1)
        return hits

    return finder
