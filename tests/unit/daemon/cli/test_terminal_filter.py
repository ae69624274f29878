"""What a job prints cannot drive the terminal of whoever reads it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cli.terminal_filter import MAX_SEQUENCE_BYTES, TerminalFilter

PIECES = [b"\x1b", b"[", b"]", b"m", b"1;", b"\x07", b"\\", b"\n", b"a", b"\xc2", b"\x9b", b"\x9c", b"\xa9"]  # fmt: skip


def shown(*chunks: bytes) -> bytes:
    """Return what a terminal gets of an output in these chunks."""
    output = TerminalFilter()
    return b"".join(map(output.feed, chunks))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"plain\ttext\r50%\b\n", b"plain\ttext\r50%\b\n"),
        (b"\x1b[1;31mred\x1b[0m\x1b[m", b"\x1b[1;31mred\x1b[0m\x1b[m"),
        (b"a\x1b]0;title\x07b", b"ab"),
        (b"a\x1b]52;c;ZXZpbA==\x1b\\b", b"ab"),
        (b"a\x1bPq#0\x1b\\b\x1b_x\x1b\\c\x1b^y\x1b\\d\x1bXz\x1b\\e", b"abcde"),
        (b"a\x1b[2J\x1b[H\x1b[6n\x1b[?1049h\x1b[>cb", b"ab"),
        (b"a\x1b[?1m\x1b[ mb", b"ab"),
        (b"a\x1bc\x1b(0\x1b#8\x1b7b", b"ab"),
        (b"a\xc2\x9b2Jb\xc2\x9d0;title\xc2\x9cc\xc2\x85d", b"abcd"),
        (b"a\x05\x07\x0e\x0f\x00\x7fb", b"ab"),
        (b"\xc2\xa9 \xe2\x82\xac \xff", b"\xc2\xa9 \xe2\x82\xac \xff"),
        (b"a\x1b]0;no end\nnext line\n", b"a\nnext line\n"),
        (b"a\x1b]0;other\x1b[31mred", b"a\x1b[31mred"),
        (b"cut \x1b[3", b"cut "),
        (b"cut \x1b]8;;http://x", b"cut "),
    ],
)
def test_only_text_and_colours_pass(printed: bytes, expected: bytes) -> None:
    """In one piece and byte by byte."""
    assert shown(printed) == expected
    assert shown(*(bytes([byte]) for byte in printed)) == expected


@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join), st.integers(1, 5))
def test_cuts_change_nothing(printed: bytes, size: int) -> None:
    """And nothing but colours begins with an escape."""
    whole = shown(printed)
    assert shown(*(printed[at : at + size] for at in range(0, len(printed), size))) == whole
    rest = re.sub(rb"\x1b\[[0-9;:]*m", b"", whole)
    assert not re.search(rb"[\x1b\x07]|\xc2[\x80-\x9f]", rest)


def test_what_never_ends_hides_little() -> None:
    """A beginning without an end swallows the bound, not the log."""
    output = TerminalFilter()
    assert output.feed(b"\x1b]0;" + b"x" * MAX_SEQUENCE_BYTES) == b""
    assert output.feed(b"text") == b"text"
