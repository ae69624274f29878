"""The trusted side: CLI, supervisor, secrets, job server and store."""

from __future__ import annotations

VERSION = "0.1.0"
