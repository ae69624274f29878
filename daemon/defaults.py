"""Defaults that the configuration and the job server share. Imports nothing: both start with it."""

from __future__ import annotations

DEFAULT_MAX_JOBS = 50_000
DEFAULT_MAX_AGE_DAYS = 30
DEFAULT_MAX_LOG_BYTES = 10 << 30
DEFAULT_MAX_OUTPUT_BYTES = 2 << 30
