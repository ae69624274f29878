"""Page tokens come back as the position that they were made of; nothing else is taken."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import UsageError
from daemon.jobs.page_tokens import (
    MAX_POSITION,
    check_page_size,
    decode_page_token,
    encode_page_token,
)


@settings(database=None)
@given(st.integers(1, MAX_POSITION))
def test_round_trip(position: int):
    """Every position can be a page's beginning."""
    assert decode_page_token(encode_page_token(position)) == position


@settings(database=None)
@given(st.text(max_size=12) | st.binary(max_size=9).map(lambda raw: raw.hex()))
def test_garbage(token: str):
    """A strange token is refused, never a traceback."""
    with contextlib.suppress(UsageError):
        assert token in ("", encode_page_token(decode_page_token(token)))


def test_first_page():
    """No token is the newest job."""
    assert decode_page_token("") == MAX_POSITION


def test_page_size():
    """A page has room for one entry at least."""
    check_page_size(1)
    with pytest.raises(UsageError):
        check_page_size(-1)
