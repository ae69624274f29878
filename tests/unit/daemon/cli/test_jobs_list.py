"""What the filters of ``runner jobs list`` mean."""

from __future__ import annotations

import pytest

from daemon.cli.jobs_list import label_pairs, since_moment
from daemon.errors import UsageError

NOW_US = 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("text", "before_s"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 604800), ("1w", 604800), ("0s", 0)],
)
def test_a_span_counts_back_from_now(text, before_s):
    assert since_moment(text, NOW_US) == NOW_US - before_s * 1_000_000


def test_a_span_longer_than_time_is_all_of_it():
    assert since_moment("999999999w", NOW_US) == 0


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14T22:13:20.000Z"]
)
def test_a_moment_is_taken_as_it_is(text):
    assert since_moment(text, 0) == NOW_US


def test_a_moment_without_a_zone_is_of_this_place(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC-5")
    time.tzset()
    try:
        assert since_moment("2023-11-15T03:13:20", 0) == NOW_US
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "2", "2x", "h", "yesterday", "-2h", "2h30m", "2023-13-01"])
def test_anything_else_is_refused_with_both_shapes(text):
    with pytest.raises(UsageError, match=r"30m, 2h or 7d, or a moment"):
        since_moment(text, NOW_US)


@pytest.mark.parametrize(
    "text", ["0001-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]
)
def test_a_moment_outside_the_calendar_is_refused(text):
    """Such a moment has no year between 1 and 9999 in UTC, so the protocol cannot say it."""
    with pytest.raises(UsageError, match="out of range"):
        since_moment(text, NOW_US)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0001-01-01T00:00:00Z", 0), ("9999-12-31T23:59:59Z", 253_402_300_799)],
)
def test_the_first_and_the_last_moment_are_taken(text, seconds):
    """What was before the epoch is all there is."""
    assert since_moment(text, NOW_US) == seconds * 1_000_000


def test_labels_are_pairs():
    assert label_pairs(("a=b", "c=", "d=e=f", "a=b")) == {"a": "b", "c": "", "d": "e=f"}


@pytest.mark.parametrize("text", ["a", "=b", ""])
def test_a_label_needs_a_key_and_a_value(text):
    with pytest.raises(UsageError, match="must be K=V"):
        label_pairs((text,))


def test_one_label_has_one_value():
    with pytest.raises(UsageError, match="not two"):
        label_pairs(("a=b", "a=c"))
