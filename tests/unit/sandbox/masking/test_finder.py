"""The search for many words: every occurrence is found, however few of the bytes are looked at."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.masking.finder import VECTOR_MAX_WORDS, VECTORS_MAX_WORDS, Hit, compile_finder
from sandbox.masking.masker import Masker
from tests.unit.sandbox.masking.test_masker import EngineMasker, oracle, run

ENGINES = pytest.mark.parametrize("automaton", [True, False], ids=["automaton", "library"])
MUCH_BYTES = 256 << 10
# The shortest of the many words decides how many bytes are skipped.
SHORTEST = pytest.mark.parametrize("shortest", [1, 7, 8, 11, 12, 16, 20, 24, 31, 32, 48])
COUNT = pytest.mark.parametrize("count", [10, VECTOR_MAX_WORDS, VECTORS_MAX_WORDS])


def every(words: list[bytes], data: bytes) -> list[Hit]:
    places = range(len(data))
    return [
        (number, start, start + len(word))
        for start in places
        for number, word in enumerate(words)
        if data.startswith(word, start)
    ]


def some_words(source: random.Random, count: int, shortest: int, alphabet: str) -> list[bytes]:
    """Many words of a length, some longer ones, and a few short ones."""
    sizes = [shortest] * (count + 20) + [source.randint(1, 60) for _ in range(20)]
    return sorted({"".join(source.choices(alphabet, k=size)).encode() for size in sizes})


@ENGINES
@COUNT
@SHORTEST
@given(seed=st.integers(0, 1 << 32), alphabet=st.sampled_from(["ab", "abcdefgh"]))
@settings(max_examples=8, deadline=None)
def test_every_occurrence_is_found(automaton, shortest, count, seed, alphabet):
    """Overlapping ones, at any distance from the start, with anything around."""
    source = random.Random(seed)
    words = some_words(source, count, shortest, alphabet)
    pieces = [
        *source.choices(words, k=20),
        *(word[1:] for word in source.choices(words, k=9)),
        b"a",
    ]
    source.shuffle(pieces)
    data = b"".join(pieces)
    _, find = compile_finder(words, automaton=automaton)
    expected = sorted(every(words, data))

    for _ in range(2):
        hits = find(data)
        assert sorted(hits) == expected
        assert [start for _, start, _ in hits] == sorted(start for _, start, _ in hits)
        find(bytes(MUCH_BYTES))  # after so much, another automaton answers


@COUNT
@SHORTEST
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=5, deadline=None)
def test_any_stream_of_many_patterns_equals_the_oracle(shortest, count, seed):
    """Whatever the cuts, exactly the covered bytes are hidden, also where a pattern or the stream was cut off."""
    source = random.Random(seed)
    patterns = some_words(source, count, shortest, "abcd")
    patterns += [word + b"dcba" * 3 for word in patterns[:5]]
    pieces = [
        *source.choices(patterns, k=6),
        *(word[: source.randint(0, len(word))] for word in source.choices(patterns, k=7)),
    ]
    source.shuffle(pieces)
    data = b"-".join(pieces)
    edges = sorted(source.choices(range(len(data) + 1), k=8))
    masker = EngineMasker(patterns, automaton=True)
    expected = oracle(patterns, data)

    assert run(masker, [data]) == expected
    assert (
        run(masker, [data[a:b] for a, b in itertools.pairwise([0, *edges, len(data)])]) == expected
    )
    assert run(masker, [data[i : i + 1] for i in range(len(data))]) == expected


@ENGINES
def test_what_is_searched_for_beside_few_words_hides_none_of_them(automaton):
    """Words that begin with, are, or stand inside the bytes that few words are searched together with."""
    words = [b"\xf8\xf8ab", b"\xf9\xf9\xf9\xf9", b"\xfa\xfa", b"\xfb"]
    data = b"\xf8" * 7 + b"ab" + b"\xf9" * 9 + b"\xfa" * 5 + b"\xfb" * 6 + b"\xf8" * 4
    _, find = compile_finder(words, automaton=automaton)

    for text in (data, data + bytes(4096)):
        assert sorted(find(text)) == sorted(every(words, text))


def test_innocent_text_that_shares_samples_is_shown():
    """What only has the looked-at bytes of a secret is compared and left alone."""
    masker = Masker(formats=False)
    values = ["".join(random.Random(n).choices("abcdefgh", k=32)) for n in range(80)]
    for value in values:
        masker.add("S", value)
    alike = "".join(letter if n % 4 == 0 else "z" for n, letter in enumerate(values[0]))

    assert masker.mask_text(f"{alike} {values[0]} {alike}") == f"{alike} *** {alike}"


def test_words_that_share_their_samples_cost_no_more():
    """Whoever chooses thousands of values that differ only where nobody looks does not slow the search down."""
    source = random.Random(5)
    words = [
        "".join(f"{c}{source.randrange(1000):03}" for c in "abcd").encode() for _ in range(4000)
    ]
    _, find = compile_finder(sorted(set(words)), automaton=True)
    data = b"axxxbxxxcxxxdxxx" * (16 << 10)
    began = time.process_time()

    assert find(data) == []
    assert time.process_time() - began < 1  # comparing with each of them takes ten


def random_words(source: random.Random, count: int, beginning: str, alphabet: str) -> list[bytes]:
    return sorted(
        {(beginning + "".join(source.choices(alphabet, k=30))).encode() for _ in range(count)}
    )


@pytest.mark.parametrize("count", [2, 20, VECTOR_MAX_WORDS, VECTORS_MAX_WORDS])
@pytest.mark.parametrize(
    ("beginning", "alphabet", "text"),
    [
        (
            "",
            "abc",
            b"a  b  c  ",
        ),  # 20 words take 40 times as long if only these bytes are looked for
        ("", "abcdefgh", b"\xf8"),  # 300 times if each four of these are found
        ("", "abcdefgh", b"\xf5\xf6\xf6\xf5"),
        ("ghp_", "abcdefgh", b"ghp_"),  # 50 times if each is compared with all words
    ],
    ids=["few bytes", "odd byte", "odd bytes", "one beginning"],
)
def test_no_text_takes_much_longer(count, beginning, alphabet, text):
    """Words may have a byte or a beginning in common, and what a job prints may be full of anything."""
    words = random_words(random.Random(count), count, beginning, alphabet)
    _, find = compile_finder(words, automaton=True)
    data = text * ((16 << 20) // len(text))
    find(data[: 1 << 20])  # the second automaton is made meanwhile
    began = time.process_time()

    assert find(data) == []
    assert time.process_time() - began < 0.3
