"""Errors of the agent-runner package."""

from __future__ import annotations

from typing import ClassVar


class AgentRunnerError(Exception):
    """Root of everything that this package raises on purpose."""

    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False


class InvalidJobSpecError(AgentRunnerError):
    """A job specification breaks a rule. Names the field, never a value that could be secret."""

    reason: ClassVar[str] = "INVALID_JOB_SPEC"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidConfigError(AgentRunnerError):
    """A configuration value of the agent-runner is missing or malformed."""

    reason: ClassVar[str] = "INVALID_CONFIG"


class SourceError(AgentRunnerError):
    """The source of a job could not be prepared."""

    reason: ClassVar[str] = "SOURCE_FAILED"


class InputMissingError(AgentRunnerError):
    """A job asks for the outputs of one that it does not depend on, or that is not kept any more."""

    reason: ClassVar[str] = "INPUT_MISSING"


class TriggersRefusedError(AgentRunnerError):
    """What a job asks for at its end breaks a rule. Names the place, never a value that could be secret."""

    reason: ClassVar[str] = "WORKFLOW_FAILED"

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place = place
        self.problem = problem


class SecretMissingError(AgentRunnerError):
    """Secrets that a job asks for have no value here. Names them all, never a value."""

    reason: ClassVar[str] = "SECRET_MISSING"


class SecretSourceGoneError(AgentRunnerError):
    """Whoever holds the secret store does not answer any more: the daemon has died."""

    reason: ClassVar[str] = "SECRET_SOURCE_GONE"
    retryable: ClassVar[bool] = True


class LeaseLostError(AgentRunnerError):
    """The server gave the attempt to somebody else, or ended it."""

    reason: ClassVar[str] = "LEASE_LOST"


class AgentReplacedError(AgentRunnerError):
    """A later start of this agent-runner has taken over: everything that runs here has lost its lease."""

    reason: ClassVar[str] = "AGENT_REPLACED"


class LogGapError(AgentRunnerError):
    """Log bytes do not start where the server's log ends."""

    reason: ClassVar[str] = "LOG_GAP"

    def __init__(self, acknowledged: int) -> None:
        super().__init__(f"the server's log ends at byte {acknowledged}")
        self.acknowledged = acknowledged


class ArtifactNotWrittenError(AgentRunnerError):
    """The job server cannot store the content of an output now; says why."""

    reason: ClassVar[str] = "ARTIFACT_NOT_WRITTEN"
    retryable: ClassVar[bool] = True


class ServerUnavailableError(AgentRunnerError):
    """The job server cannot be reached now; the call may be repeated."""

    reason: ClassVar[str] = "SERVER_UNAVAILABLE"
    retryable: ClassVar[bool] = True


class NotAdmittedError(ServerUnavailableError):
    """The job server does not let this agent-runner in: a token, a project or a certificate is wrong.

    Somebody has to change that, and may do it at the server, so what is not delivered is kept.
    """

    reason: ClassVar[str] = "NOT_ADMITTED"


class ServerRefusedError(AgentRunnerError):
    """The job server refused a call for good, for example for a wrong token."""

    reason: ClassVar[str] = "SERVER_REFUSED"
