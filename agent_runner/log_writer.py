"""The LogWriter port: where an executor puts the log of an attempt."""

from __future__ import annotations

from typing import Protocol

from agent_runner.outcome import LogSummary


class LogWriter(Protocol):
    """Where the masked bytes of one attempt go."""

    def write(self, data: bytes) -> None:
        """Take bytes, in order. Never blocks for long."""
        ...

    async def drained(self) -> None:
        """Wait until more may be written; this is the back-pressure on the command."""
        ...

    def summary(self) -> LogSummary:
        """Return length and digest of all that was written."""
        ...
