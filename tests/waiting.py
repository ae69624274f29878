"""Waiting on conditions with a deadline; the only place of the tests that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T], deadline_s: float, describe: Callable[[], str] | str = "condition"
) -> T:
    """Return the first true value of ``condition``; fail with a description after the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            text = describe if isinstance(describe, str) else describe()
            raise AssertionError(f"not within {deadline_s} s: {text}")
        time.sleep(0.02)
