"""A command that ended before it began."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sandbox.base import ExecResult, LiveProcess
from sandbox.errors import SandboxBrokenError, SandboxError


class EndedCommand:
    """What ``Sandbox.exec`` returns when there is nothing to run: it was not found, not executable, or invalid."""

    def __init__(self, outcome: ExecResult | SandboxError, output: bytes = b"") -> None:
        self._outcome = outcome
        self._output = output

    @property
    def verified_dead(self) -> bool:
        """Tell whether it is certain that nothing lives: it is, unless this host failed half way."""
        return not isinstance(self._outcome, SandboxBrokenError)

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the line that says why."""
        if self._output:
            yield self._output

    async def wait(self) -> ExecResult:
        """Return the result or raise the error at once."""
        if isinstance(self._outcome, SandboxError):
            raise self._outcome
        return self._outcome

    async def stop(self, grace_s: float) -> None:
        """Do nothing: there is no process."""

    async def kill(self) -> None:
        """Do nothing: there is no process."""

    def discard_output(self) -> None:
        """Do nothing: what there is to say is not in a pipe."""

    async def processes(self) -> list[LiveProcess]:
        """Return nothing: there is no process."""
        return []
