"""What a job asks for, and the rules that every job obeys however it was submitted.

The same rules hold for a job file, a gRPC client and a test: ``JobSpec.validate`` is called by the server for
each submit and by ``run-local``. Names of fields in errors are those of the job file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_inputs import check_inputs
from agent_runner.outcome import EndReason
from agent_runner.outputs_spec import CacheSpec, OutputsSpec, check_cache, check_outputs
from agent_runner.project_names import PROJECT_NAME, PROJECT_RULE
from agent_runner.sandbox_spec import SandboxSpec, check_sandbox
from agent_runner.workflow_spec import WorkflowSpec, check_condition, check_workflow

DEFAULT_TIMEOUT_S = 3600.0
MAX_TIMEOUT_S = 30 * 86400.0
MAX_SPEC_BYTES = 1 << 20
MAX_NAME_CHARS = 200
MAX_PRIORITY = 1000
MAX_RETRIES = 100
MAX_ATTEMPTS = 1000
MAX_BACKOFF_S = 3600.0
MAX_RETRY_CODES = 255
MAX_GROUP_LIMIT = 1000
MAX_DEPENDENCIES = 100
MAX_NOT_BEFORE_US = 253_402_300_799_000_000
"""The end of the year 9999, where the timestamps of the wire end."""
MAX_ENV_VARIABLES = 2000
"""bubblewrap takes 9,000 words in all, three for each variable."""
MAX_ENV_VALUE_BYTES = 131_000
"""execve refuses one ``NAME=value`` of 131,072 bytes or more (execve(2), MAX_ARG_STRLEN)."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:[:/@][A-Za-z0-9][A-Za-z0-9._-]*)*")
MAX_IMAGE_CHARS = 500
JOB_ID = re.compile(r"[0-9a-z]{1,64}")
JOB_ROOT = "/job"
RESERVED_ENV_PREFIX = "RUNNER_"
OLDER_ENV_PREFIX = "REACTORCIDE_"
"""The first generation's; jobs that deploy it have variables of their own with it."""
JOB_FACTS = (
    "JOB_ID",
    "ATTEMPT",
    "JOB_ROOT",
    "CODE_DIR",
    "JOB_DIR",
    "CI_SOURCE_DIR",
    "SOURCE_URL",
    "SOURCE_REF",
)
"""What every job is told in variables, under both prefixes."""
_OLDER_FACTS = frozenset(OLDER_ENV_PREFIX + fact for fact in JOB_FACTS)

MASKINGS = ("", "values", "off")
LFS = ("auto", "on", "off")
SOURCES = ("none", "copy", "git")
MAX_SOURCE_DEPTH = 1_000_000

FAILURES = frozenset(
    {
        EndReason.EXITED,
        EndReason.SIGNALED,
        EndReason.TIMED_OUT,
        EndReason.IDLE_TIMED_OUT,
        EndReason.OUT_OF_MEMORY,
    }
)
"""The ends that a command itself can come to, other than by success."""
RETRYABLE = FAILURES | {
    EndReason.SOURCE_FAILED,
    EndReason.SANDBOX_FAILED,
    EndReason.IMAGE_MISSING,
    EndReason.ENGINE_GONE,
    EndReason.SECRET_MISSING,
    EndReason.GATE_FAILED,
    EndReason.AGENT_FAILED,
}
"""The ends that ``retries`` may name. A lost attempt is run again without being named; the rest are not failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """Where the source comes from."""

    kind: str = "none"
    path: str = ""
    """Absolute host folder, for ``copy``."""
    url: str = ""
    """Of the repository, for ``git``; see ``git_names``."""
    ref: str = ""
    """Branch, tag, full ``refs/…`` or commit id; empty for the default branch."""
    depth: int = 0
    """How many commits of history; 0 for all."""
    submodules: bool = False
    lfs: str = "auto"
    """Of ``LFS``: ``auto`` fetches large files if git-lfs is installed, ``on`` needs it, ``off`` leaves pointers."""
    credentials: str = ""
    """Text with secret references, ``USER:PASSWORD``, a token, or a private key for ssh; never a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which ends of an attempt are tried again, and when."""

    max: int = 0
    """Attempts after the first that a failure may lead to."""
    backoff_s: float = 0.0
    """Wait before the second attempt; doubles for each later one, up to an hour."""
    exit_codes: tuple[int, ...] = ()
    end_reasons: tuple[EndReason, ...] = ()
    """Without any exit code or reason, every one of ``FAILURES``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySpec:
    """A group of jobs of which only some may run at once."""

    group: str
    limit: int = 1
    """How many, as this job sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A job: what to run, with what, and where. Times are seconds, sizes are bytes."""

    argv: tuple[str, ...]
    name: str = "job"
    env: Mapping[str, str] = field(default_factory=dict)
    source: SourceSpec = SourceSpec()
    ci_source: SourceSpec = SourceSpec()
    """Trusted scripts, read-only at ``/job/ci``."""
    container_image: str = ""
    """Of the container, where the job runs in one; empty for the operator's."""
    code_dir: str = "/job/src"
    job_dir: str = ""
    """Working directory; empty means ``code_dir``."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    idle_timeout_s: float | None = None
    sandbox: SandboxSpec = SandboxSpec()  # noqa: RUF009 - frozen
    labels: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    """Whose job it is. Empty until the server has accepted the job: then the one of whoever submits it."""
    priority: int = 0
    retries: RetryPolicy | None = None
    concurrency: ConcurrencySpec | None = None
    depends_on: tuple[str, ...] = ()
    """Ids of jobs that must have ended before, as ``condition`` says."""
    not_before_us: int | None = None
    """Wall-clock time before which no attempt begins, in microseconds since the epoch."""
    max_attempts: int = 0
    """Bounds failures and losses together; 0 leaves each its own bound."""
    masking: str = ""
    """Of ``MASKINGS``: what the log hides. Empty: the secrets and what looks like one; ``values``: only the secrets."""
    outputs: OutputsSpec = OutputsSpec()  # noqa: RUF009 - frozen
    cache: CacheSpec | None = None
    """Lets an equal job that has succeeded stand for this one; None runs it in any case."""
    condition: str = ""
    """Of ``workflow_spec.CONDITIONS``: which ends of ``depends_on`` let the job start."""
    workflow: WorkflowSpec | None = None
    trigger_secrets: tuple[str, ...] = ()
    """Patterns of ``PATH:KEY`` that jobs which this one triggers may refer to, beside what it refers to itself."""
    inputs: tuple[str, ...] = ()
    """Names of jobs of ``depends_on`` whose outputs the command finds below ``/job/inputs``; see ``job_inputs``."""

    @property
    def working_dir(self) -> str:
        """Return the directory in which the command starts."""
        return self.job_dir or self.code_dir

    @property
    def has_material(self) -> bool:
        """Tell whether anything is put into its sandbox before the command starts."""
        return bool(self.inputs) or self.source.kind != "none" or self.ci_source.kind != "none"

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
        _check_source("source", self.source)
        _check_source("ci_source", self.ci_source)
        if self.container_image and not (
            len(self.container_image) <= MAX_IMAGE_CHARS and IMAGE.fullmatch(self.container_image)
        ):
            raise InvalidJobSpecError("container_image", "is not the name of an image")
        _check_dir("code_dir", self.code_dir)
        _check_dir("job_dir", self.working_dir)
        _check_times(self.timeout_s, self.idle_timeout_s)
        check_sandbox(self.sandbox, self.env)
        for key, value in self.labels.items():
            if not LABEL_NAME.fullmatch(key):
                raise InvalidJobSpecError("labels", f"{key!r} is not a label name")
            _check_text(f"labels.{key}", value, MAX_NAME_CHARS)
        if self.project and not PROJECT_NAME.fullmatch(self.project):
            raise InvalidJobSpecError("project", f"must be {PROJECT_RULE}")
        if self.masking not in MASKINGS:
            raise InvalidJobSpecError("masking", "must be empty, values or off")
        if abs(self.priority) > MAX_PRIORITY:
            raise InvalidJobSpecError(
                "priority", f"must lie between -{MAX_PRIORITY} and {MAX_PRIORITY}"
            )
        _check_retries(self.retries)
        check_outputs(self.outputs)
        if self.cache is not None:
            check_cache(self.cache)
        _check_queue(self)
        check_condition(self.condition, self.depends_on)
        check_workflow(self.workflow, self.trigger_secrets)
        if self.inputs:
            check_inputs(self.inputs, self.depends_on, cached=self.cache is not None)


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
        if name.startswith(RESERVED_ENV_PREFIX) or name in _OLDER_FACTS:
            raise InvalidJobSpecError(f"env.{name}", "is reserved: the runner sets it itself")
        _check_text(f"env.{name}", value, MAX_ENV_VALUE_BYTES)
        if len(name) + len(value.encode()) > MAX_ENV_VALUE_BYTES:
            raise InvalidJobSpecError(
                f"env.{name}", "is longer than a variable can be (131,000 bytes)"
            )


def _check_source(prefix: str, source: SourceSpec) -> None:
    if source.kind not in SOURCES:
        raise InvalidJobSpecError(f"{prefix}_type", f"must be one of {', '.join(SOURCES)}")
    if source.kind != "copy" and source.path:
        raise InvalidJobSpecError(f"{prefix}_path", f"needs {prefix}_type: copy")
    if source.kind == "git":
        _check_git_source(prefix, source)
        return
    for name, given in (
        ("url", source.url),
        ("ref", source.ref),
        ("depth", source.depth),
        ("submodules", source.submodules),
        ("lfs", source.lfs != "auto"),
        ("credentials", source.credentials),
    ):
        if given:
            raise InvalidJobSpecError(f"{prefix}_{name}", f"needs {prefix}_type: git")
    if source.kind == "copy":
        _check_text(f"{prefix}_path", source.path, 4096)
        if not source.path.startswith("/"):
            raise InvalidJobSpecError(f"{prefix}_path", "must be an absolute path here")


def _check_git_source(prefix: str, source: SourceSpec) -> None:
    # Every command line that submits a job imports this module, and few jobs have such a source.
    from agent_runner.git_names import check_ref, parse_url  # noqa: PLC0415

    _check_text(f"{prefix}_url", source.url, 4096)
    _check_text(f"{prefix}_ref", source.ref, 4096)
    try:
        url = parse_url(source.url)
    except ValueError as error:
        raise InvalidJobSpecError(f"{prefix}_url", str(error)) from None
    try:
        check_ref(source.ref)
    except ValueError as error:
        raise InvalidJobSpecError(f"{prefix}_ref", str(error)) from None
    if not 0 <= source.depth <= MAX_SOURCE_DEPTH:
        raise InvalidJobSpecError(
            f"{prefix}_depth", f"must lie between 1 and {MAX_SOURCE_DEPTH}, or be left out for all"
        )
    if source.lfs not in LFS:
        raise InvalidJobSpecError(f"{prefix}_lfs", f"must be one of {', '.join(LFS)}")
    if not source.credentials:
        return
    _check_text(f"{prefix}_credentials", source.credentials, 4096)
    if url.scheme == "file":
        raise InvalidJobSpecError(f"{prefix}_credentials", "are for a repository of another host")
    if url.scheme == "http" and not url.is_loopback:
        raise InvalidJobSpecError(
            f"{prefix}_credentials", "would travel in the clear over http; use https"
        )


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


def _check_retries(retries: RetryPolicy | None) -> None:
    if retries is None:
        return
    if not 0 <= retries.max <= MAX_RETRIES:
        raise InvalidJobSpecError("retries.max", f"must lie between 0 and {MAX_RETRIES}")
    if not 0 <= retries.backoff_s <= MAX_BACKOFF_S:
        raise InvalidJobSpecError("retries.backoff_seconds", "must be at least 0 and at most 3600")
    if len(retries.exit_codes) > MAX_RETRY_CODES:
        raise InvalidJobSpecError("retries.on", f"holds more than {MAX_RETRY_CODES} exit codes")
    for code in retries.exit_codes:
        if not 0 < code <= 255:  # noqa: PLR2004 - what a process can exit with
            raise InvalidJobSpecError("retries.on", f"{code} is not an exit code from 1 to 255")
    for reason in retries.end_reasons:
        if reason not in RETRYABLE:
            raise InvalidJobSpecError("retries.on", f"{reason} is not an end that can be retried")


def _check_queue(spec: JobSpec) -> None:
    if spec.concurrency is not None:
        group = spec.concurrency.group
        _check_text("concurrency.group", group, MAX_NAME_CHARS)
        if not group.strip():
            raise InvalidJobSpecError("concurrency.group", "must not be empty")
        if not 0 < spec.concurrency.limit <= MAX_GROUP_LIMIT:
            raise InvalidJobSpecError(
                "concurrency.limit", f"must lie between 1 and {MAX_GROUP_LIMIT}"
            )
    if len(spec.depends_on) > MAX_DEPENDENCIES:
        raise InvalidJobSpecError("depends_on", f"lists more than {MAX_DEPENDENCIES} jobs")
    for position, job_id in enumerate(spec.depends_on):
        if not JOB_ID.fullmatch(job_id):
            raise InvalidJobSpecError(f"depends_on.{position}", "is not the id of a job")
        if job_id in spec.depends_on[:position]:
            raise InvalidJobSpecError(f"depends_on.{position}", f"lists job {job_id} again")
    if spec.not_before_us is not None and not 0 <= spec.not_before_us <= MAX_NOT_BEFORE_US:
        raise InvalidJobSpecError("not_before", "must lie between the years 1970 and 9999")
    if not 0 <= spec.max_attempts <= MAX_ATTEMPTS:
        raise InvalidJobSpecError("max_attempts", f"must lie between 0 and {MAX_ATTEMPTS}")
