"""The names of projects, which divide jobs, tokens and agent-runners of one server. Imports nothing."""

from __future__ import annotations

import re

DEFAULT_PROJECT = "default"
"""Of whatever names none."""
PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PROJECT_RULE = (
    "1 to 64 lower-case letters, digits, dots, dashes or underscores, a letter or digit first"
)
