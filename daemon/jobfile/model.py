"""The shape of a job file: fields and their types. Meaning is checked by ``JobSpec.validate``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
)
from pydantic_core import PydanticCustomError

from agent_runner.job_spec import DEFAULT_TIMEOUT_S, RETRYABLE
from agent_runner.outcome import EndReason
from daemon.jobfile.moment import Moment, parse_moment
from daemon.jobfile.problem import did_you_mean
from daemon.jobfile.size import parse_size


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except ValueError as exc:
        raise PydanticCustomError("size", "{text}", {"text": str(exc)}) from exc


def _moment(value: object) -> Moment:
    try:
        return parse_moment(value)
    except ValueError as exc:
        raise PydanticCustomError("moment", "{text}", {"text": str(exc)}) from exc


def _retried_end(value: object) -> int | EndReason:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value in RETRYABLE:
        return EndReason(value)
    names = sorted(RETRYABLE)
    hint = did_you_mean(value.upper(), names) if isinstance(value, str) else ""
    text = f"must be an exit code or one of {', '.join(names)}{hint}"
    raise PydanticCustomError("retried_end", "{text}", {"text": text})


def _not_blank(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("blank", "must not be empty")
    return value


def _step(value: object) -> object:
    return {"command": value} if isinstance(value, str) else value


def _as_it_is(value: object) -> object:
    """Return what the dialect has made a mapping."""
    return value


def _group(value: object) -> object:
    return {"group": value} if isinstance(value, str) else value


def _command_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else None


def _network_kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "text"


def _masking_kind(value: Any) -> str:
    return "mapping" if isinstance(value, dict) else "text"


RetriedEnd = Annotated[
    int | EndReason, PlainValidator(_retried_end, json_schema_input_type=int | str)
]
NotBefore = Annotated[Moment, PlainValidator(_moment, json_schema_input_type=str)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
NetworkField = Annotated[
    Annotated[Literal["on", "off"], Tag("text")] | Annotated[list[str], Tag("list")],
    Discriminator(_network_kind),
]
Command = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Tag("list")], Discriminator(_command_kind)
]


SourceType = Literal["none", "copy", "git"]
Lfs = Literal["auto", "on", "off"]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class SandboxFields(_Fields):
    """The ``sandbox`` field."""

    kind: Literal["auto", "filesystem", "container"] = "auto"
    min: Literal["bwrap", "landlock", "plain"] = "landlock"
    network: NetworkField = "on"
    memory: Size = 0
    cpus: float = 0.0
    pids: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    disk: Size = 0
    open_files: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    output: Size = 0
    require: list[str] = Field(default_factory=list)
    protect: bool = True
    fallback: Literal["never", "ask", "allow"] = "never"
    container_only: list[str] = Field(default_factory=list)
    reuse: Literal["off", "project"] = "off"
    nested: Literal["none", "dind", "dood"] = "none"
    cache: bool = False


class RetryFields(_Fields):
    """The ``retries`` field."""

    max: int
    backoff_seconds: float = 0.0
    on: list[RetriedEnd] = Field(default_factory=list)


class ConcurrencyFields(_Fields):
    """The ``concurrency`` field; a plain text is the group's name."""

    group: str
    limit: int = 1


class OutputFields(_Fields):
    """The ``outputs`` field; a list stands for its paths."""

    paths: list[str]
    max_size: Size = 0
    max_files: int = 0


class CacheFields(_Fields):
    """The ``cache`` field."""

    inputs: list[str] = Field(default_factory=list)
    key: str = ""
    outputs: list[str] = Field(default_factory=list)


class MaskingFields(_Fields):
    """The ``masking`` field; a plain ``off`` stands for both."""

    formats: Literal["on", "off"] = "on"


class StepFields(_Fields):
    """One of ``steps``; a plain text is its command."""

    name: str = ""
    command: Annotated[str, AfterValidator(_not_blank)]


class TriggerFields(_Fields):
    """The ``triggers`` field: what triggered jobs may have; the rest is of older files and for people."""

    secrets: list[str] = Field(default_factory=list)
    events: list[str] = Field(default_factory=list)
    branches: list[str] = Field(default_factory=list)


class PathFields(_Fields):
    """The ``paths`` field of older files: for people."""

    include: list[str] = Field(default_factory=list)
    exclude: list[str] = Field(default_factory=list)


Step = Annotated[StepFields, BeforeValidator(_step, json_schema_input_type=StepFields | str)]


class JobFields(_Fields):
    """A job file, with the names of the present dialect."""

    name: str | None = None
    description: str = ""
    job_command: Command | None = None
    steps: Annotated[list[Step], Field(min_length=1)] | None = None
    raw_command: bool = False
    source_type: SourceType = "none"
    source_path: str = ""
    source_url: str = ""
    source_ref: str = ""
    source_depth: int = 0
    source_submodules: bool = False
    source_lfs: Lfs = "auto"
    source_credentials: str = ""
    ci_source_type: SourceType = "none"
    ci_source_path: str = ""
    ci_source_url: str = ""
    ci_source_ref: str = ""
    ci_source_depth: int = 0
    ci_source_submodules: bool = False
    ci_source_lfs: Lfs = "auto"
    ci_source_credentials: str = ""
    container_image: str = ""
    code_dir: str = "/job/src"
    job_dir: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    timeout_seconds: float = DEFAULT_TIMEOUT_S
    idle_timeout_seconds: float | None = None
    sandbox: SandboxFields = SandboxFields()
    labels: dict[str, str] = Field(default_factory=dict)
    project: str = ""
    priority: int = 0
    retries: RetryFields | None = None
    concurrency: Annotated[
        ConcurrencyFields | None,
        BeforeValidator(_group, json_schema_input_type=ConcurrencyFields | str | None),
    ] = None
    depends_on: list[str] = Field(default_factory=list)
    condition: str = ""
    inputs: list[str] = Field(default_factory=list)
    not_before: NotBefore | None = None
    max_attempts: int = 0
    outputs: Annotated[
        OutputFields | None,
        BeforeValidator(_as_it_is, json_schema_input_type=OutputFields | list[str] | str | None),
    ] = None
    cache: CacheFields | None = None
    disable_run_local: bool = False
    triggers: TriggerFields | None = None
    paths: PathFields | None = None
    masking: Annotated[
        Annotated[Literal["on", "off"], Tag("text")] | Annotated[MaskingFields, Tag("mapping")],
        Discriminator(_masking_kind),
    ] = "on"


INNER_FIELDS: dict[str, tuple[str, ...]] = {
    name: tuple(model.model_fields)
    for name, model in (
        ("sandbox", SandboxFields),
        ("retries", RetryFields),
        ("concurrency", ConcurrencyFields),
        ("steps", StepFields),
        ("triggers", TriggerFields),
        ("paths", PathFields),
        ("masking", MaskingFields),
        ("outputs", OutputFields),
        ("cache", CacheFields),
    )
}
"""What the fields that are mappings may hold."""
