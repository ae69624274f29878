"""What compiling patterns costs, and that what makes it cheap is right."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox.masking.engine import MaskEngine, _period
from sandbox.masking.forms import derived_forms


@given(
    unit=st.text("ab", min_size=1, max_size=6),
    times=st.integers(1, 5),
    end=st.text("ab", max_size=6),
)
@example(unit="aab", times=2, end="aa")
def test_the_period_is_the_smallest_shift_onto_itself(unit, times, end):
    """The one that trying every shift finds."""
    pattern = (unit * times + end).encode()
    shifts = range(1, len(pattern) // 2 + 1)

    assert _period(pattern) == next(
        (shift for shift in shifts if pattern.startswith(pattern[shift:])), 0
    )


@pytest.mark.parametrize(
    "value",
    [b"ab" * 32_000 + b"c", b"a" * 40_000 + b"b" + b"a" * 20_000, b"\n" * 65_000 + b"abcd1234"],
    ids=["nearly periodic", "twice", "line ends"],
)
def test_a_value_that_nearly_repeats_itself_is_compiled_quickly(value):
    """Whoever chooses a value must not be able to keep an agent-runner busy with it."""
    began = time.process_time()
    MaskEngine([value, value[1:], value[:-9]])

    assert time.process_time() - began < 0.5  # trying every shift takes several seconds


def test_many_carriage_returns_are_split_quickly():
    """A value of nothing else costs no time that grows with its square."""
    began = time.process_time()
    derived_forms(b"\r" * 60_000 + b"x" * 12)

    assert time.process_time() - began < 2.5  # from each of them to the last takes five seconds
