"""What one look at this machine has found."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from daemon.paths import StateDir


class Level(enum.StrEnum):
    """How good or bad it is."""

    OK = "ok"
    NOTE = "note"
    """Works, and something optional is not there."""
    WARNING = "warning"
    """Works, but worse or less safely than it could."""
    FAILED = "failed"
    """Does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    """Stable name in lower case with dots, such as ``secrets.store``."""
    level: Level
    text: str
    """What is so; never a secret value."""
    todo: str = ""
    """What a person can do about it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is looked at."""

    env: Mapping[str, str]
    """The caller's environment."""
    state: StateDir | None
    """The state directory; None if none can be named."""
