"""Names for jobs: sortable by time, unguessable, safe in paths, URLs and host names."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_BITS = 48
_RANDOM_BITS = 80
_CHARS = 26


def new_job_id() -> str:
    """Return 26 characters: 48 bits of milliseconds and 80 random ones, as a ULID, in lower case."""
    millis = time.time_ns() // 1_000_000
    number = (millis & ((1 << _TIME_BITS) - 1)) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    chars = []
    for _ in range(_CHARS):
        number, index = divmod(number, 32)
        chars.append(_ALPHABET[index])
    return "".join(reversed(chars))
