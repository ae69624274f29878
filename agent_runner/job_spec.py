"""What a job asks for, and the rules that every job obeys however it was submitted. Leaf module.

The same rules hold for a job file, a gRPC client and a test: ``JobSpec.validate`` is called by the server for
each submit and by ``run-local``. Names of fields in errors are those of the job file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_runner.errors import InvalidJobSpecError

DEFAULT_TIMEOUT_S = 3600.0
MAX_TIMEOUT_S = 30 * 86400.0
MAX_SPEC_BYTES = 1 << 20
MAX_NAME_CHARS = 200
MAX_PRIORITY = 1000
MAX_ENV_VARIABLES = 2000
"""bubblewrap takes 9,000 words in all, three for each variable."""
MAX_ENV_VALUE_BYTES = 131_000
"""execve refuses one ``NAME=value`` of 131,072 bytes or more (execve(2), MAX_ARG_STRLEN)."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
JOB_ROOT = "/job"
RESERVED_ENV_PREFIXES = ("RUNNER_", "REACTORCIDE_")

KINDS = ("auto", "filesystem")
TIERS = ("bwrap", "landlock", "plain")
NETWORKS = ("on", "off")
SOURCES = ("none", "copy")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """The place where the command runs, as the job asks for it."""

    kind: str = "auto"
    min: str = "landlock"
    network: str = "on"
    memory_bytes: int = 0
    pids: int = 0
    output_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Where the source comes from."""

    kind: str = "none"
    path: str = ""
    """Absolute host folder, for ``copy``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job: what to run, with what, and where. Times are seconds, sizes are bytes."""

    argv: tuple[str, ...]
    name: str = "job"
    env: Mapping[str, str] = field(default_factory=dict)
    source: SourceSpec = SourceSpec()
    code_dir: str = "/job/src"
    job_dir: str = ""
    """Working directory; empty means ``code_dir``."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    idle_timeout_s: float | None = None
    sandbox: SandboxSpec = SandboxSpec()
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0

    @property
    def working_dir(self) -> str:
        """Return the directory in which the command starts."""
        return self.job_dir or self.code_dir

    def validate(self) -> None:
        """Check every rule that does not need a file's position.

        Raises:
            InvalidJobSpecError: The first rule that is broken.
        """
        _check_text("name", self.name, MAX_NAME_CHARS)
        if not self.name.strip():
            raise InvalidJobSpecError("name", "must not be empty")
        _check_command(self.argv)
        _check_env(self.env)
        _check_source(self.source)
        _check_dir("code_dir", self.code_dir)
        _check_dir("job_dir", self.working_dir)
        _check_times(self.timeout_s, self.idle_timeout_s)
        _check_sandbox(self.sandbox)
        for key, value in self.labels.items():
            if not LABEL_NAME.fullmatch(key):
                raise InvalidJobSpecError("labels", f"{key!r} is not a label name")
            _check_text(f"labels.{key}", value, MAX_NAME_CHARS)
        if abs(self.priority) > MAX_PRIORITY:
            raise InvalidJobSpecError(
                "priority", f"must lie between -{MAX_PRIORITY} and {MAX_PRIORITY}"
            )


def shell_command(text: str) -> tuple[str, ...]:
    """Return the argument vector of a ``job_command`` that is a string (DESIGN: ``sh -c``)."""
    return ("/bin/sh", "-c", text)


def _check_text(name: str, value: str, limit: int) -> None:
    if "\0" in value:
        raise InvalidJobSpecError(
            name, "holds a NUL byte, which no command line or variable can carry"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidJobSpecError(name, "is not valid Unicode") from None
    if len(value) > limit:
        raise InvalidJobSpecError(name, f"is longer than {limit} characters")


def _check_command(argv: tuple[str, ...]) -> None:
    if not argv or not argv[0]:
        raise InvalidJobSpecError("job_command", "must not be empty")
    # `sh -c ''` would succeed and hide a command that was lost on the way.
    if argv[:2] == ("/bin/sh", "-c") and not "".join(argv[2:3]).strip():
        raise InvalidJobSpecError("job_command", "must not be empty")
    for word in argv:
        _check_text("job_command", word, MAX_ENV_VALUE_BYTES)


def _check_env(env: Mapping[str, str]) -> None:
    if len(env) > MAX_ENV_VARIABLES:
        raise InvalidJobSpecError("env", f"holds more than {MAX_ENV_VARIABLES} variables")
    for name, value in env.items():
        if not ENV_NAME.fullmatch(name):
            raise InvalidJobSpecError("env", f"{name!r} is not a variable name")
        if name.startswith(RESERVED_ENV_PREFIXES):
            raise InvalidJobSpecError(f"env.{name}", "is reserved: the runner sets it itself")
        _check_text(f"env.{name}", value, MAX_ENV_VALUE_BYTES)
        if len(name) + len(value.encode()) > MAX_ENV_VALUE_BYTES:
            raise InvalidJobSpecError(
                f"env.{name}", "is longer than a variable can be (131,000 bytes)"
            )


def _check_source(source: SourceSpec) -> None:
    if source.kind not in SOURCES:
        raise InvalidJobSpecError("source_type", f"must be one of {', '.join(SOURCES)}")
    if source.kind == "none":
        if source.path:
            raise InvalidJobSpecError("source_path", "needs source_type: copy")
        return
    _check_text("source_path", source.path, 4096)
    if not source.path.startswith("/"):
        raise InvalidJobSpecError("source_path", "must be an absolute path here")


def _check_dir(name: str, path: str) -> None:
    _check_text(name, path, 4096)
    inside = path == JOB_ROOT or path.startswith(f"{JOB_ROOT}/")
    if not inside or ".." in path.split("/"):
        raise InvalidJobSpecError(name, f"must be {JOB_ROOT} or a path below it")


def _check_times(timeout_s: float, idle_timeout_s: float | None) -> None:
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise InvalidJobSpecError("timeout_seconds", "must be more than 0 and at most 30 days")
    if idle_timeout_s is not None and not 0 < idle_timeout_s <= MAX_TIMEOUT_S:
        raise InvalidJobSpecError("idle_timeout_seconds", "must be more than 0 and at most 30 days")


def _check_sandbox(sandbox: SandboxSpec) -> None:
    for name, value, allowed in (
        ("kind", sandbox.kind, KINDS),
        ("min", sandbox.min, TIERS),
        ("network", sandbox.network, NETWORKS),
    ):
        if value not in allowed:
            raise InvalidJobSpecError(f"sandbox.{name}", f"must be one of {', '.join(allowed)}")
    for name, number in (
        ("memory", sandbox.memory_bytes),
        ("pids", sandbox.pids),
        ("output", sandbox.output_bytes),
    ):
        if number < 0:
            raise InvalidJobSpecError(f"sandbox.{name}", "must not be negative")
