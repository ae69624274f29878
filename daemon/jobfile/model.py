"""The shape of a job file: fields and their types. Meaning is checked by ``JobSpec.validate``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from agent_runner.job_spec import DEFAULT_TIMEOUT_S
from daemon.jobfile.size import parse_size


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except ValueError as exc:
        raise PydanticCustomError("size", "{text}", {"text": str(exc)}) from exc


def _command_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else None


Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]
Command = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Tag("list")], Discriminator(_command_kind)
]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class SandboxFields(_Fields):
    """The ``sandbox`` field."""

    kind: Literal["auto", "filesystem"] = "auto"
    min: Literal["bwrap", "landlock", "plain"] = "landlock"
    network: Literal["on", "off"] = "on"
    memory: Size = 0
    pids: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    output: Size = 0


class JobFields(_Fields):
    """A job file, with the names of the present dialect."""

    job_command: Command
    name: str | None = None
    source_type: Literal["none", "copy"] = "none"
    source_path: str = ""
    code_dir: str = "/job/src"
    job_dir: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    timeout_seconds: float = DEFAULT_TIMEOUT_S
    idle_timeout_seconds: float | None = None
    sandbox: SandboxFields = SandboxFields()
    labels: dict[str, str] = Field(default_factory=dict)
    priority: int = 0
