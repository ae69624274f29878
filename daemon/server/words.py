"""Times, numbers and names as sentences have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

MAX_NAMED = 5
_S = 1_000_000
_MINUTE_S = 60


def moment(time_us: int) -> str:
    """Return a moment, in UTC to the second."""
    return f"{datetime.fromtimestamp(time_us // _S, UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(time_us: int) -> str:
    """Return a span of time."""
    seconds = max(0, time_us) / _S
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), _MINUTE_S)
    hours, minutes = divmod(minutes, _MINUTE_S)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def named_jobs(ids: Sequence[str]) -> str:
    """Return the first few of a list, and how many more there are."""
    more = len(ids) - MAX_NAMED
    return ", ".join(ids[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """Return labels as a command line has them."""
    return ", ".join(f"{key}={value}" for key, value in sorted(items))
