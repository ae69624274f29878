"""P26: what the token and TLS cost. There is nothing to compare with: the token cannot be switched off."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.goals import Goal, Group, UnavailableError


class Access(Group):
    """Kept in the table, so that nobody takes its absence for a goal that is met."""

    goals = (
        Goal("P26", "jobs/s with token and TLS, vs without", 0.8, 0.9, at_most=False),
        Goal("P26", "p50 with token and TLS, vs without", 1.3, 1.15),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Say why there is no number.

        Raises:
            UnavailableError: Always.
        """
        raise UnavailableError("not available: no TLS yet; every call needs the token")
