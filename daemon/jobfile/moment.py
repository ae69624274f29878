"""Moments: a time of RFC 3339, or a delay from now such as ``1h30m``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MAX_DELAY_S = 3650 * 86400

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_DELAY = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_UNITS_S = (86400, 3600, 60, 1)
_EXPECTED = (
    "must be a time with its zone, such as 2027-01-31T18:00:00Z, or a delay, such as 90s or 1h30m"
)


class Moment(NamedTuple):
    """A moment as a job file gives it: one of the two is set."""

    time_us: int | None = None
    """Microseconds since the epoch."""
    delay_us: int | None = None

    def after(self, now_us: int) -> int:
        """Return the moment in microseconds since the epoch; a delay counts from ``now_us``."""
        return self.time_us if self.time_us is not None else now_us + (self.delay_us or 0)


def parse_moment(value: object) -> Moment:
    """Return a moment.

    Raises:
        ValueError: It is none; the text says what was expected.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(_EXPECTED)
    if _TIME.fullmatch(value):
        return Moment(time_us=_time_us(value))
    match = _DELAY.fullmatch(value)
    if match is None:
        raise ValueError(_EXPECTED)
    parts = zip(match.groups(default="0"), _UNITS_S, strict=True)
    delay_s = sum(int(number) * unit for number, unit in parts)
    if delay_s > MAX_DELAY_S:
        raise ValueError("must be at most ten years away")
    return Moment(delay_us=delay_s * 1_000_000)


def _time_us(text: str) -> int:
    try:
        # Of the zone's letter and the separator, Python 3.11 takes only the upper case.
        moment = datetime.fromisoformat(text.upper())
        return (moment - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        raise ValueError("is no date and time that exists") from None
