"""``::add-mask::VALUE`` on a line of its own: hidden from there on, wherever the stream is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.masking.commands import (
    COMMAND,
    MAX_LATE_BYTES,
    MAX_LINE_BYTES,
    REFUSED,
    CommandStream,
    holds_command,
)
from sandbox.masking.masker import Masker

# what a job prints, what its log shows
CASES = [
    ("::add-mask::late-value-1\nx late-value-1\n", "::add-mask::***\nx ***\n"),
    ("a\n::add-mask::late-value-1\r\nlate-value-1", "a\n::add-mask::***\r\n***"),
    ("late-value-1\n::add-mask::late-value-1\n", "late-value-1\n::add-mask::***\n"),
    ("::add-mask::line-one-1%0Aline-two-2\nline-two-2\n", "::add-mask::***\n***\n"),
    ("::add-mask::100%25-sure-1\n100%-sure-1\n", "::add-mask::***\n***\n"),
    ("::add-mask::late-value-1", "::add-mask::***\n"),
    ("::add-mask::one-value-1\n::add-mask::two-value-2\none-value-1 two-value-2\n", "::add-mask::***\n" * 2 + "*** ***\n"),
    ("x ::add-mask::shown-value\n", "x ::add-mask::shown-value\n"),
    ("::add-mask\n::other::\n:", "::add-mask\n::other::\n:"),
    ("::add-mask::true\ntrue\n", "::add-mask::***\n" + REFUSED.decode() + "true\n"),
    ("\n::add-mask::\n", "\n::add-mask::***\n" + REFUSED.decode()),
]  # fmt: skip


def chunked(data: bytes, edges: list[int]) -> bytes:
    masker = Masker()
    stream = CommandStream(masker.stream(), masker.add)
    cuts = itertools.pairwise([0, *edges, len(data)])
    return b"".join(stream.feed(data[a:b]) for a, b in cuts) + stream.close()


@pytest.mark.parametrize(("printed", "shown"), CASES)
def test_command_in_every_chunking(printed, shown):
    """A value is hidden behind the line that names it, and the line does not show it."""
    data = printed.encode()

    assert chunked(data, []) == shown.encode()
    assert chunked(data, list(range(len(data)))) == shown.encode()
    for cut in range(len(data)):
        assert chunked(data, [cut]) == shown.encode()


@given(
    pieces=st.lists(
        st.sampled_from(["::add-mask::", "::add", ":", "\n", "a-value-1", "\r\n", "x", "%0A"]),
        max_size=14,
    ),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_no_chunking_changes_the_output(pieces, data):
    """Any lines give the same output in one piece and in any pieces."""
    text = "".join(pieces).encode()
    edges = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))

    assert chunked(text, edges) == chunked(text, [])
    assert chunked(text, list(range(len(text)))) == chunked(text, [])


def test_only_what_could_be_a_command_is_held_back():
    """Prompts are out at once, also at the start of a line."""
    masker = Masker()
    stream = CommandStream(masker.stream(), masker.add)

    assert stream.feed(b"Password: ") == b"Password: "
    assert stream.feed(b"\n:") == b"\n"
    assert stream.feed(b")") == b":)"


@pytest.mark.parametrize("size", [MAX_LATE_BYTES + 1, MAX_LINE_BYTES + 1, 4 * MAX_LINE_BYTES])
def test_a_value_that_is_too_long_is_not_shown(size):
    """A line beyond the bounds is dropped whole, and said to be."""
    line = COMMAND + b"v" * size + b"\n"

    shown = chunked(line + b"next\n", list(range(1000, size, 5000)))
    assert shown == b"::add-mask::***\n" + REFUSED + b"next\n"


@pytest.mark.parametrize("size", [0, 1 << 20], ids=["short", "long"])
def test_where_a_piece_may_hold_a_command(size):
    """At its beginning, and in any line, however long it is."""
    text = b"0123456 \n" * (size // 9)
    assert holds_command(COMMAND + b"value" + text)
    assert holds_command(text + b"\n" + COMMAND)
    assert holds_command(text + b"\n" + COMMAND + b"value\n" + text)
    assert not holds_command(text + b"\n:" + text)
