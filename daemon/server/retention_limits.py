"""How much of what has ended a server keeps. Leaf module: the daemon's configuration reads it too."""

from __future__ import annotations

from dataclasses import dataclass

MAX_JOBS = 50_000
MAX_AGE_DAYS = 30
MAX_LOG_BYTES = 10 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionLimits:
    """How much of what has ended is kept; 0 is no bound."""

    max_jobs: int = MAX_JOBS
    max_age_days: int = MAX_AGE_DAYS
    max_log_bytes: int = MAX_LOG_BYTES
