"""How much of what has ended a server keeps. The daemon's configuration says it."""

from __future__ import annotations

from typing import NamedTuple

from daemon.defaults import DEFAULT_MAX_AGE_DAYS, DEFAULT_MAX_JOBS, DEFAULT_MAX_LOG_BYTES


class RetentionLimits(NamedTuple):
    """How much of what has ended is kept; 0 is no bound."""

    max_jobs: int = DEFAULT_MAX_JOBS
    max_age_days: int = DEFAULT_MAX_AGE_DAYS
    max_log_bytes: int = DEFAULT_MAX_LOG_BYTES
