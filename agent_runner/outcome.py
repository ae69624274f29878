"""How an attempt ended: the reasons and the record that travels from executor to server. Leaf module."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class EndReason(enum.StrEnum):
    """Why an attempt or a job ended; data beside the state."""

    EXITED = "EXITED"
    SIGNALED = "SIGNALED"
    TIMED_OUT = "TIMED_OUT"
    IDLE_TIMED_OUT = "IDLE_TIMED_OUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CANCELLED = "CANCELLED"
    LOST = "LOST"
    SOURCE_FAILED = "SOURCE_FAILED"
    SANDBOX_FAILED = "SANDBOX_FAILED"
    IMAGE_MISSING = "IMAGE_MISSING"
    ENGINE_GONE = "ENGINE_GONE"
    SECRET_MISSING = "SECRET_MISSING"  # noqa: S105 - the name of a reason
    GATE_FAILED = "GATE_FAILED"
    AGENT_FAILED = "AGENT_FAILED"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    SKIPPED = "SKIPPED"
    WORKFLOW_FAILED = "WORKFLOW_FAILED"


class LimitRecord(NamedTuple):
    """One bound of a sandbox, in the words of the wire and the store."""

    name: str
    value: float
    by: str
    """What keeps it; empty if nothing could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRecord:
    """The sandbox that an attempt really got, in the words of the wire and the store."""

    kind: str = ""
    tier: str = ""
    walls_not_held: tuple[str, ...] = ()
    limits: tuple[LimitRecord, ...] = ()
    """The bounds that the job asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """What the sources of an attempt really were."""

    commit: str = ""
    """Of the source, for ``git``."""
    ci_commit: str = ""
    """Of the trusted source, for ``git``."""


NO_SOURCE = SourceRecord()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What the whole masked log of an attempt must look like."""

    length: int = 0
    sha256: str = ""
    truncated: str = ""
    """Why it is shorter than the output: ``size_limit``, ``agent_died``, ``disk_full``, ``damaged``; empty when it is whole."""


class OutputFile(NamedTuple):
    """One file that a job left, as it is recorded."""

    name: str
    """Below ``code_dir``."""
    sha256: str
    size: int
    mode: int
    """Permissions only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsRecord:
    """What became of the outputs of an attempt."""

    files: tuple[OutputFile, ...] = ()
    """Those that are kept, by name."""
    error: str = ""
    """Which others are not, though they were asked for, and why; masked."""


class TriggerFile(NamedTuple):
    """A job file of the source that a document of triggers names."""

    name: str
    content: str


class Triggers(NamedTuple):
    """The jobs that are to follow an attempt; holds no value of a secret."""

    document: str
    """In the format of ``triggers.json``, checked; see ``agent_runner.triggers``."""
    files: tuple[TriggerFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of one attempt, as the executor reports it."""

    end_reason: EndReason
    exit_code: int | None = None
    message: str = ""
    """What went wrong, in words; masked."""
    sandbox: SandboxRecord = SandboxRecord()
    source: SourceRecord = NO_SOURCE
    log: LogSummary = LogSummary()
    outputs: OutputsRecord = OutputsRecord()
    interrupted: bool = False
    """The agent-runner was told to stop: the attempt does not count."""
    returned: bool = False
    """It was interrupted before it began, because no slot was free in time; the agent-runner goes on."""
    triggers: Triggers | None = None
    workflow_output: str = ""
    """What the job gives to its workflow, as JSON; see ``agent_runner.triggers.workflow_output``."""

    @property
    def succeeded(self) -> bool:
        """Tell whether this end is a success of the job."""
        return self.end_reason is EndReason.EXITED and self.exit_code == 0


def triggers_from(value: list[Any] | None) -> Triggers | None:
    """Return the jobs to follow that were written as JSON, where each is a list."""
    if value is None:
        return None
    document, files = value
    return Triggers(document, tuple(TriggerFile(*each) for each in files))


def outputs_from(document: Mapping[str, Any]) -> OutputsRecord:
    """Return outputs that were written as JSON, where each file is a list."""
    files = tuple(OutputFile(*each) for each in document.get("files", ()))
    return OutputsRecord(files=files, error=document.get("error", ""))


def limits_from(values: Iterable[list[Any]]) -> tuple[LimitRecord, ...]:
    """Return bounds that were written as JSON, where each is a list."""
    return tuple(LimitRecord(*value) for value in values)
