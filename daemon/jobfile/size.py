"""Sizes of memory and output: a number of bytes, or a number with a unit."""

from __future__ import annotations

import re

MAX_SIZE_BYTES = 2**63 - 1
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(value: object) -> int:
    """Return a number of bytes.

    Args:
        value: Bytes as a whole number, or text such as ``512MiB`` (1,024) or ``1.5GB`` (1,000).

    Raises:
        ValueError: It is neither; the text says what was expected.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        number, prefix, binary = match.groups(default="")
        size = round(float(number) * (1024 if binary else 1000) ** _POWERS[prefix.lower()])
    else:
        raise ValueError("must be a whole number of bytes, or like 512MiB or 1.5GB")
    if size < 0:
        raise ValueError("must not be negative")
    if size > MAX_SIZE_BYTES:
        raise ValueError("is too large")
    return size
