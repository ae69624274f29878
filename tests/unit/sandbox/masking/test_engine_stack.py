"""Patterns that are added one after the other: found as if they had been there together, at a small cost each."""

from __future__ import annotations

import itertools
import secrets
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.masking.engine import MaskEngine
from sandbox.masking.engine_stack import EngineStack, _Layer
from sandbox.masking.masker import Masker
from sandbox.masking.stream import MaskingStream


def masked(stack: EngineStack, chunks: list[bytes]) -> bytes:
    stream = MaskingStream(lambda: stack, None)
    return b"".join(map(stream.feed, chunks)) + stream.close()


@st.composite
def layered_streams(draw):
    text = st.text(draw(st.sampled_from(["ab", "abc"])), min_size=1, max_size=24).map(str.encode)
    layers = draw(st.lists(st.sets(text, min_size=1, max_size=4), min_size=2, max_size=4))
    patterns = sorted(set().union(*layers))
    part = st.sampled_from(patterns)
    pieces = st.one_of(text, part, part.map(lambda p: p[:-1]))
    data = b"".join(draw(st.lists(pieces, max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=10)))
    return layers, [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]


@given(case=layered_streams())
@settings(max_examples=400, deadline=None)
def test_several_engines_answer_like_one(case):
    """However patterns are spread over engines, and wherever the stream is cut, the same bytes are hidden."""
    layers, chunks = case
    together = frozenset().union(*layers)
    one = EngineStack().with_patterns(together, automaton=True)
    several = EngineStack(tuple(_Layer(layer, MaskEngine(layer)) for layer in layers))

    assert masked(several, chunks) == masked(one, [b"".join(chunks)])


def test_late_values_are_found_beside_the_early_ones():
    """Values of every age are hidden, also where they overlap."""
    masker = Masker()
    values = [secrets.token_hex(8) for _ in range(300)]
    values.append(values[0][4:] + values[1][:4])
    for number, value in enumerate(values):
        masker.add(f"S{number}", value)
        masker.snapshot()

    assert masker.mask_text(" ".join(values)) == " ".join(["***"] * len(values))
    assert masker.mask_text(f"x {values[0]}{values[1]} y") == "x *** y"


def test_many_late_values_cost_little_each():
    """A thousand values, each in force before the next comes, cost few times what they cost together."""
    values = [secrets.token_urlsafe(24) for _ in range(1000)]
    costs = []
    for one_by_one in (False, True):
        masker = Masker()
        began = time.process_time()
        for number, value in enumerate(values):
            assert masker.add(f"S{number}", value)
            if one_by_one:
                masker.snapshot()
        masker.snapshot()
        costs.append(time.process_time() - began)

    assert costs[1] < 50 * costs[0]  # compiled anew for each, they cost five hundred times as much
