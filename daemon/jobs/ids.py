"""Names for jobs: sortable by time, unguessable, safe in paths, URLs and host names."""

from __future__ import annotations

import base64
import secrets
import time

_TIME_BYTES = 6
_RANDOM_BYTES = 10


def new_job_id() -> str:
    """Return 26 characters: 48 bits of milliseconds and 80 random ones in base32hex (RFC 4648), which sorts as its bytes do."""
    millis = time.time_ns() // 1_000_000
    raw = millis.to_bytes(_TIME_BYTES) + secrets.token_bytes(_RANDOM_BYTES)
    return base64.b32hexencode(raw).decode().rstrip("=").lower()
