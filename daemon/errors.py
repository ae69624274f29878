"""Errors of the daemon package. Leaf module: one root, one class per thing that a caller can act on."""

from __future__ import annotations

from typing import ClassVar


class DaemonError(Exception):
    """Root of everything that this package raises on purpose.

    The text says what failed and what to do, and is printed as one line; ``reason`` is stable and travels on the wire.
    """

    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    """What the CLI exits with (DESIGN §11)."""


class UsageError(DaemonError):
    """The words or values of a command or request are wrong."""

    reason: ClassVar[str] = "INVALID_REQUEST"
    exit_code: ClassVar[int] = 2


class InvalidConfigError(DaemonError):
    """A configuration value is malformed; names its origin."""

    reason: ClassVar[str] = "INVALID_CONFIG"
    exit_code: ClassVar[int] = 2


class InvalidJobFileError(DaemonError):
    """A job file cannot be read as a job; names file, line, column and field."""

    reason: ClassVar[str] = "INVALID_JOB_FILE"
    exit_code: ClassVar[int] = 2


class NotRunningError(DaemonError):
    """No daemon or job server answers for this state directory."""

    reason: ClassVar[str] = "NOT_RUNNING"
    exit_code: ClassVar[int] = 3


class JobNotFoundError(DaemonError):
    """No job has this id."""

    reason: ClassVar[str] = "JOB_NOT_FOUND"
    exit_code: ClassVar[int] = 3


class AttemptNotFoundError(DaemonError):
    """The job has no such attempt."""

    reason: ClassVar[str] = "ATTEMPT_NOT_FOUND"
    exit_code: ClassVar[int] = 3


class ArtifactNotFoundError(DaemonError):
    """The attempt left no output of this name."""

    reason: ClassVar[str] = "ARTIFACT_NOT_FOUND"
    exit_code: ClassVar[int] = 3


class ArtifactMissingError(DaemonError):
    """An attempt is to end with outputs whose contents are not stored here."""

    reason: ClassVar[str] = "ARTIFACT_MISSING"


class ArtifactNotWrittenError(DaemonError):
    """The contents of an output could not be stored; says why."""

    reason: ClassVar[str] = "ARTIFACT_NOT_WRITTEN"
    retryable: ClassVar[bool] = True


class RequestIdReusedError(DaemonError):
    """A request id was used before with another payload."""

    reason: ClassVar[str] = "REQUEST_ID_REUSED"


class JobNotCancellableError(DaemonError):
    """The job has already ended."""

    reason: ClassVar[str] = "JOB_NOT_CANCELLABLE"


class JobNotEndedError(DaemonError):
    """The job has not ended yet."""

    reason: ClassVar[str] = "JOB_NOT_ENDED"


class DependencyFailedError(DaemonError):
    """The job depends on one that did not succeed."""

    reason: ClassVar[str] = "DEPENDENCY_FAILED"


class EventsRemovedError(DaemonError):
    """Events after the one to watch on from were removed with their jobs."""

    reason: ClassVar[str] = "EVENTS_REMOVED"


class LeaseLostError(DaemonError):
    """Somebody wrote for an attempt without holding its lease."""

    reason: ClassVar[str] = "LEASE_LOST"


class AgentReplacedError(DaemonError):
    """A later start of the same agent-runner has taken over: this one is to stop everything and exit."""

    reason: ClassVar[str] = "AGENT_REPLACED"


class LogGapError(DaemonError):
    """Log bytes do not start where the stored log ends."""

    reason: ClassVar[str] = "LOG_GAP"

    def __init__(self, acknowledged: int) -> None:
        super().__init__(f"the stored log ends at byte {acknowledged}; send the bytes from there")
        self.acknowledged = acknowledged


class QueueFullError(DaemonError):
    """The queue takes no more jobs."""

    reason: ClassVar[str] = "QUEUE_FULL"


class TokenMissingError(DaemonError):
    """A call carries no bearer token."""

    reason: ClassVar[str] = "TOKEN_MISSING"


class TokenRejectedError(DaemonError):
    """A call carries a bearer token that is not the server's."""

    reason: ClassVar[str] = "TOKEN_REJECTED"


class RoleNotAllowedError(DaemonError):
    """The role of the token does not allow the call."""

    reason: ClassVar[str] = "ROLE_NOT_ALLOWED"


class ProjectNotAllowedError(DaemonError):
    """A call names a project that its token is not for."""

    reason: ClassVar[str] = "PROJECT_NOT_ALLOWED"


class TokenNotFoundError(DaemonError):
    """No token has this id."""

    reason: ClassVar[str] = "TOKEN_NOT_FOUND"
    exit_code: ClassVar[int] = 3


class ShuttingDownError(DaemonError):
    """The server is stopping; the call may be repeated later."""

    reason: ClassVar[str] = "SHUTTING_DOWN"
    retryable: ClassVar[bool] = True


class StoreUnusableError(DaemonError):
    """The database cannot be used: damaged, not writable, or written by a newer version."""

    reason: ClassVar[str] = "RECORD_CORRUPT"


class StoreUnavailableError(StoreUnusableError):
    """The store cannot take or give anything now: its disk is full or failing, it is held, or it is closed."""

    reason: ClassVar[str] = "STORE_UNAVAILABLE"
    retryable: ClassVar[bool] = True


class LogNotWrittenError(DaemonError):
    """Log bytes could not be stored, for example on a full disk; the stored log is as before the call."""

    reason: ClassVar[str] = "LOG_NOT_WRITTEN"
    retryable: ClassVar[bool] = True


class SecretNeededError(DaemonError):
    """A required secret has no value and cannot be asked for."""

    reason: ClassVar[str] = "SECRET_MISSING"
    exit_code: ClassVar[int] = 8


class SecretStoreError(DaemonError):
    """The secret store cannot be read or written; nothing was changed."""

    reason: ClassVar[str] = "SECRET_STORE_FAILED"


class WrongPasswordError(SecretStoreError):
    """The password does not open the secret store."""

    reason: ClassVar[str] = "WRONG_PASSWORD"
    exit_code: ClassVar[int] = 4


class SecretKeyStaleError(WrongPasswordError):
    """The key that a process was handed opens the secret store no more: the password was changed since."""

    reason: ClassVar[str] = "SECRET_KEY_STALE"


class NoSecretStoreError(SecretStoreError):
    """There is no secret store."""

    reason: ClassVar[str] = "NO_SECRET_STORE"
    exit_code: ClassVar[int] = 5


class DamagedSecretStoreError(SecretStoreError):
    """The secret store is damaged, was changed, or was written by a newer runner."""

    reason: ClassVar[str] = "SECRET_STORE_DAMAGED"
    exit_code: ClassVar[int] = 6


class SecretNotFoundError(DaemonError):
    """The secret store has no such path or key; names it."""

    reason: ClassVar[str] = "SECRET_NOT_FOUND"
    exit_code: ClassVar[int] = 3


class SecretExistsError(UsageError):
    """The secret store has names that were not to be replaced; lists them."""

    reason: ClassVar[str] = "SECRET_EXISTS"


class KeyringUnusableError(DaemonError):
    """The keyring of the desktop cannot be used: absent, locked, refused, or too slow. Callers go on to the next source."""

    reason: ClassVar[str] = "KEYRING_UNUSABLE"


class StateDirError(DaemonError):
    """The state directory cannot be used: not writable, foreign, or too open."""

    reason: ClassVar[str] = "STATE_DIR_UNUSABLE"


class BusyError(DaemonError):
    """Another runner process holds what is needed."""

    reason: ClassVar[str] = "LOCKED"
    exit_code: ClassVar[int] = 7


class StartFailedError(DaemonError):
    """A process did not become ready; carries the tail of its log."""

    reason: ClassVar[str] = "START_FAILED"


class StopFailedError(DaemonError):
    """A process survived KILL; names it."""

    reason: ClassVar[str] = "STOP_FAILED"


class RemoteError(DaemonError):
    """The job server refused a call of the CLI; carries the server's words and reason."""

    def __init__(self, message: str, reason: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.remote_reason = reason
        self.remote_exit_code = exit_code


class Interrupted(DaemonError):  # noqa: N818 - an end, not a fault
    """The person pressed Ctrl-C."""

    reason: ClassVar[str] = "INTERRUPTED"
    exit_code: ClassVar[int] = 130
