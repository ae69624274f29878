"""How much of what has ended a server keeps. The daemon's configuration says it."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.config import DEFAULT_MAX_AGE_DAYS, DEFAULT_MAX_JOBS, DEFAULT_MAX_LOG_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionLimits:
    """How much of what has ended is kept; 0 is no bound."""

    max_jobs: int = DEFAULT_MAX_JOBS
    max_age_days: int = DEFAULT_MAX_AGE_DAYS
    max_log_bytes: int = DEFAULT_MAX_LOG_BYTES
