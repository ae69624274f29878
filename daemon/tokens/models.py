"""The values that describe a token."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Role(StrEnum):
    """What a token may call."""

    CLIENT = "client"
    """``JobService``, for jobs of its projects."""
    AGENT = "agent"
    """``AgentService``; gets jobs of its projects."""
    ADMIN = "admin"
    """Everything, for every project."""


class Token(NamedTuple):
    """One token without its secret. Times are microseconds since the epoch."""

    id: str
    sha256: str
    """Of the secret, in hexadecimal."""
    role: Role
    projects: tuple[str, ...]
    """Empty for an admin, who has all."""
    create_us: int
    last_use_us: int | None = None
    expire_us: int | None = None
    revoke_us: int | None = None

    def is_good(self, now_us: int) -> bool:
        """Tell whether it counts at a moment."""
        return self.revoke_us is None and (self.expire_us is None or now_us < self.expire_us)
