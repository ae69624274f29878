"""The filesystem sandbox in the place of a container that cannot be had: whether it may, and what the job is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import Outcome
from agent_runner.verdict import sandbox_end
from sandbox.base import SandboxInfo
from sandbox.errors import SandboxError

ALLOW, ASK = "allow", "ask"
CONTAINER = "container"
FILESYSTEM = "filesystem"
ERROR_VARIABLE = "RUNNER_CONTAINER_ERROR"
"""Tells a job why it is in no container, though it asked for one."""
WITHHELD_VARIABLE = "RUNNER_WITHHELD"
"""Names the variables that a job does not get, because they are for containers only."""
MAX_ERROR_CHARS = 2000
"""Of an engine's words that a job is told."""

Consent = Callable[[str], Awaitable[bool]]
"""Asks a person whether a job may run outside a container, told why it cannot run in one."""
Mask = Callable[[str], str]


class Fallback:
    """What one attempt may do without a container, and whether it does. Used by its executor only."""

    def __init__(self, spec: JobSpec, default_kind: str, consent: Consent | None) -> None:
        """Look at what the job asks for.

        Args:
            spec: The job.
            default_kind: The sandbox that it gets if it asks for none.
            consent: Asks somebody; None where nobody can be asked, so that ``ask`` means ``never``.
        """
        self._policy = spec.sandbox.fallback
        self._container_only = spec.sandbox.container_only
        kind = default_kind if spec.sandbox.kind == "auto" else spec.sandbox.kind
        self._in_container = kind == CONTAINER
        self._consent = consent
        self._error: SandboxError | None = None
        self.withheld = () if self._in_container else self._container_only
        """The variables that the command does not get where it is to run."""

    @property
    def is_told(self) -> bool:
        """Tell whether there is anything that the job is told."""
        return self._error is not None or bool(self.withheld)

    def handed_out(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the variables without those that are withheld."""
        return {name: value for name, value in env.items() if name not in self.withheld}

    def is_possible(self, error: SandboxError, *, exec_asked: bool) -> bool:
        """Tell whether the job may go on without a container, if somebody consents who has to be asked.

        Args:
            error: What ended the attempt so far.
            exec_asked: Whether the command may have been started.
        """
        allowed = self._policy == ALLOW or (self._policy == ASK and self._consent is not None)
        if not allowed or not self._in_container:
            return False
        from sandbox.container.failure import failed_before_command  # noqa: PLC0415 - a rare moment

        return failed_before_command(error, exec_asked=exec_asked)

    async def is_agreed(self, error: SandboxError) -> bool:
        """Ask whoever has to be asked; called after ``is_possible``."""
        if self._policy == ALLOW or self._consent is None:
            return self._policy == ALLOW
        return await self._consent(_one_line(str(error)))

    def take_over(self, error: SandboxError) -> None:
        """Remember that there is no container, and why."""
        self._error = error
        self._in_container = False
        self.withheld = self._container_only

    def variables(self, mask: Mask) -> dict[str, str]:
        """Return what the command is told in its environment."""
        told = {}
        if self._error is not None:
            told[ERROR_VARIABLE] = self._reason(mask)
        if self.withheld:
            told[WITHHELD_VARIABLE] = ",".join(self.withheld)
        return told

    def notice(self, info: SandboxInfo, mask: Mask) -> bytes:
        """Return the line for the log of the job; empty if there is nothing to tell."""
        names = ", ".join(self.withheld)
        if self._error is not None:
            text = (
                f"runner: WARNING: NO CONTAINER: {self._reason(mask)}; the command runs in the"
                f" {info.kind} sandbox instead ({info.tier.label})"
            )
            text += f"; withheld, because they are for containers only: {names}" if names else ""
        elif names:
            text = f"runner: withheld, because they are for containers only: {names}"
        else:
            return b""
        return text.encode() + b"\n"

    def told(self, outcome: Outcome) -> Outcome:
        """Return the end of the attempt with the reason why it was in no container, unmasked."""
        if self._error is None:
            return outcome
        note = f"ran in the filesystem sandbox, because there was no container: {self._error}"
        return replace(outcome, message=f"{outcome.message}; {note}" if outcome.message else note)

    def failure(self, error: SandboxError) -> Outcome:
        """Return how an attempt ended whose last sandbox could not be made, or broke; the first reason counts."""
        if self._error is None:
            return sandbox_end(error)
        first, self._error = self._error, None
        both = f"{first}; and there was no filesystem sandbox instead: {error}"
        return replace(sandbox_end(first), message=both)

    def _reason(self, mask: Mask) -> str:
        # Masked before it is cut: a half of a secret is not found any more.
        return _one_line(mask(str(self._error)))[:MAX_ERROR_CHARS]


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").encode("utf-8", "replace").decode().split())
