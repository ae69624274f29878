"""Reads a job file: bytes to ``JobSpec``, or one error that names file, line, column and field.

Import it where a file is really read: it brings in pydantic and the YAML parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import (
    ENV_NAME,
    LABEL_NAME,
    MAX_NAME_CHARS,
    ConcurrencySpec,
    JobSpec,
    RetryPolicy,
    SourceSpec,
    shell_command,
)
from agent_runner.outcome import EndReason
from agent_runner.outputs_spec import CacheSpec, OutputsSpec
from agent_runner.sandbox_spec import SandboxSpec
from agent_runner.secret_refs import check_refs
from agent_runner.workflow_spec import canonical_condition
from daemon.clock import SystemClock
from daemon.jobfile.dialect import SOURCE_PARTS, flatten
from daemon.jobfile.flat_job import FlatJob
from daemon.jobfile.flat_job import Path as FieldPath
from daemon.jobfile.model import (
    INNER_FIELDS,
    JobFields,
    MaskingFields,
    OutputFields,
    RetryFields,
    SandboxFields,
)
from daemon.jobfile.overlay import MAX_OVERLAYS, Overlay, lay_over, too_many
from daemon.jobfile.problem import Problem, did_you_mean, invalid_job_file
from daemon.jobfile.reading import read_tree
from daemon.jobfile.source_paths import source_path
from daemon.jobfile.steps import steps_script
from daemon.jobfile.tree import is_unicode

_TEXTS = {
    "missing": "is missing",
    "string_type": "must be text; put it in quotes",
    "union_tag_invalid": "must be text for a shell, or a list of texts",
    "union_tag_not_found": "must be text for a shell, or a list of texts",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "list_type": "must be a list",
    "too_short": "must not be empty",
    "bool_type": "must be true or false",
}


def load_job_file(  # noqa: PLR0913 - a file, and how it is read
    content: bytes,
    name: str,
    base_dir: Path,
    now_us: int | None = None,
    *,
    overlays: Sequence[Overlay] = (),
    allow_secret_overrides: bool = False,
    to_run_here: bool = False,
) -> JobSpec:
    """Read a job file. Pure but for the working directory, which completes a relative ``base_dir``, and the clock.

    Args:
        content: The bytes of the file.
        name: The file's name as the user typed it; a name that ends in ``.json`` is read as JSON.
        base_dir: Folder to which ``source_path`` is relative.
        now_us: Moment from which a delay in ``not_before`` counts; by default this one.
        overlays: Files that are laid over it, in order.
        allow_secret_overrides: Whether an overlay may replace a secret reference by plain text.
        to_run_here: It is for ``run-local``, which a job may refuse.

    Raises:
        InvalidJobFileError: The file is not a job. One line for each problem, up to ten, in the
            order of the file: ``FILE:LINE:COL: FIELD: what is wrong``.
    """
    flat = _read(content, name, overlays, allow_secret_overrides=allow_secret_overrides)
    fields = _check_shape(flat)
    now_us = SystemClock().now_us() if now_us is None else now_us
    spec = _build(fields, name, base_dir, now_us) if fields else None
    if fields and fields.disable_run_local and to_run_here:
        text = "says that this job is not for run-local; submit it"
        flat.problems.append(flat.problem(("disable_run_local",), text))
    if spec and not flat.problems:
        flat.problems += _broken_rules(spec, flat)
    if spec is None or flat.problems:
        raise invalid_job_file(name, flat.problems)
    return spec


def _read(
    content: bytes, name: str, overlays: Sequence[Overlay], *, allow_secret_overrides: bool
) -> FlatJob:
    try:
        if len(overlays) > MAX_OVERLAYS:
            raise too_many(len(overlays))
        flat = flatten(read_tree(content, name))
    except Problem as problem:
        raise invalid_job_file(name, [problem]) from problem
    for overlay in overlays:
        lay_over(flat, overlay, allow_secret_overrides=allow_secret_overrides)
    return flat


def _check_shape(flat: FlatJob) -> JobFields | None:
    """Return the typed fields, or None after adding to the problems."""
    # A file that asks for what comes later (an agent) has no command to miss.
    if not (flat.problems or flat.has("job_command") or flat.has("steps")):
        flat.problems.append(flat.problem(("job_command",), "is missing"))
    if flat.has("job_command") and flat.has("steps"):
        text = "a job has either job_command or steps"
        flat.problems.append(flat.problem(("steps",), text, at_key=True))
    try:
        return JobFields.model_validate(flat.data)
    except ValidationError as exc:
        for error in exc.errors(include_url=False, include_context=True):
            flat.problems.append(_shape_problem(error, flat))
        return None


def _shape_problem(error: ErrorDetails, flat: FlatJob) -> Problem:
    path: FieldPath = error["loc"]
    for union in (("job_command",), ("sandbox", "network"), ("masking",)):
        if path[: len(union)] == union:
            path = (*union, *path[len(union) + 1 :])  # what comes first names a branch of the union
    if error["type"] == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), INNER_FIELDS.get(str(path[0]), ()))
        return flat.problem(path, f"unknown field{hint}", at_key=True)
    if error["type"] != "missing" and error["input"] is None:
        # The parser places an empty value where the next thing begins.
        at_key = isinstance(path[-1], str)
        return flat.problem(path, "has no value; give it one or remove it", at_key=at_key)
    if error["type"] == "string_type" and isinstance(error["input"], list | dict):
        return flat.problem(path, "must be text")
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return flat.problem(path, f"must be one of {expected}")
    return flat.problem(path, _TEXTS.get(error["type"], error["msg"]))


def _build(fields: JobFields, name: str, base_dir: Path, now_us: int) -> JobSpec:
    group = fields.concurrency
    return JobSpec(
        argv=_argv(fields),
        name=_default_name(name) if fields.name is None else fields.name,
        env=fields.env,
        source=_source(fields, "source", base_dir),
        ci_source=_source(fields, "ci_source", base_dir),
        container_image=fields.container_image,
        code_dir=fields.code_dir,
        job_dir=fields.job_dir,
        timeout_s=fields.timeout_seconds,
        idle_timeout_s=fields.idle_timeout_seconds,
        sandbox=_sandbox(fields.sandbox),
        labels=fields.labels,
        project=fields.project,
        priority=fields.priority,
        retries=_retries(fields.retries) if fields.retries else None,
        concurrency=ConcurrencySpec(group=group.group, limit=group.limit) if group else None,
        depends_on=tuple(fields.depends_on),
        condition=canonical_condition(fields.condition),
        inputs=tuple(fields.inputs),
        trigger_secrets=tuple(fields.triggers.secrets) if fields.triggers else (),
        not_before_us=fields.not_before.after(now_us) if fields.not_before else None,
        max_attempts=fields.max_attempts,
        masking=_masking(fields.masking),
        outputs=_outputs(fields),
        cache=CacheSpec(inputs=tuple(fields.cache.inputs), key=fields.cache.key)
        if fields.cache
        else None,
    )


def _sandbox(sandbox: SandboxFields) -> SandboxSpec:
    return SandboxSpec(
        kind=sandbox.kind,
        min=sandbox.min,
        network="hosts" if isinstance(sandbox.network, list) else sandbox.network,
        memory_bytes=sandbox.memory,
        pids=sandbox.pids,
        output_bytes=sandbox.output,
        cpus=sandbox.cpus,
        disk_bytes=sandbox.disk,
        open_files=sandbox.open_files,
        hosts=tuple(sandbox.network) if isinstance(sandbox.network, list) else (),
        require=tuple(sandbox.require),
        unprotected=not sandbox.protect,
        fallback=sandbox.fallback if "fallback" in sandbox.model_fields_set else "",
        container_only=tuple(sandbox.container_only),
        reuse="" if sandbox.reuse == "off" else sandbox.reuse,
        nested="" if sandbox.nested == "none" else sandbox.nested,
        cache=sandbox.cache,
    )


def _argv(fields: JobFields) -> tuple[str, ...]:
    if fields.steps is not None:
        return shell_command(steps_script((step.name, step.command) for step in fields.steps))
    command = fields.job_command
    return tuple(command) if isinstance(command, list) else shell_command(command or "")


def _masking(field: str | MaskingFields) -> str:
    if isinstance(field, str):
        return "" if field == "on" else field
    return "" if field.formats == "on" else "values"


def _source(fields: JobFields, prefix: str, base_dir: Path) -> SourceSpec:
    given = {name: getattr(fields, f"{prefix}_{name}") for name in SOURCE_PARTS}
    kind, path = given.pop("type"), given.pop("path")
    return SourceSpec(kind=kind, path=source_path(base_dir, path) if path else "", **given)


def _retries(fields: RetryFields) -> RetryPolicy:
    reasons = tuple(end for end in fields.on if isinstance(end, EndReason))
    codes = tuple(end for end in fields.on if not isinstance(end, EndReason))
    return RetryPolicy(
        max=fields.max, backoff_s=fields.backoff_seconds, exit_codes=codes, end_reasons=reasons
    )


def _outputs(fields: JobFields) -> OutputsSpec:
    """Return the outputs of the job; those of its cache are the same thing, said in another place."""
    outputs = fields.outputs or OutputFields(paths=[])
    more = fields.cache.outputs if fields.cache else []
    return OutputsSpec(
        paths=(*outputs.paths, *more), max_bytes=outputs.max_size, max_files=outputs.max_files
    )


def _default_name(file_name: str) -> str:
    stem = PurePath(file_name).stem
    if not is_unicode(stem) or "\0" in stem or not stem.strip(" -"):
        return "job"
    return stem[:MAX_NAME_CHARS]


def _broken_rules(spec: JobSpec, flat: FlatJob) -> list[Problem]:
    """Check what a field means; `validate` knows the rules, this knows the places."""
    problems = [
        flat.problem(("env", key), "is not a variable name", at_key=True)
        for key in spec.env
        if not ENV_NAME.fullmatch(key)
    ]
    problems += [
        flat.problem(("labels", key), "is not a label name", at_key=True)
        for key in spec.labels
        if not LABEL_NAME.fullmatch(key)
    ]
    for prefix, source in (("source", spec.source), ("ci_source", spec.ci_source)):
        needed = {"copy": "path", "git": "url"}.get(source.kind)
        if needed and not getattr(source, needed):
            text = f"{source.kind} needs {prefix}_{needed}"
            problems.append(flat.problem((f"{prefix}_type",), text))
    if problems:
        return problems
    try:
        spec.validate()
        check_refs(spec)
    except InvalidJobSpecError as exc:
        path = _field_path(exc.field)
        if path == ("job_command",) and flat.has("steps"):
            path = ("steps",)
        return [flat.problem(path, exc.problem)]
    return []


def _field_path(field: str) -> FieldPath:
    """Return the path of a field as `validate` names it; names in maps may hold dots."""
    outer, _, inner = field.partition(".")
    if field.startswith("triggers.secrets."):
        return ("triggers", "secrets", int(field.rpartition(".")[2]))
    if outer in {"depends_on", "inputs"} and inner:
        return (outer, int(inner))
    listed, _, position = inner.partition(".")
    if outer == "sandbox" and listed in ("network", "container_only") and position:
        return (outer, listed, int(position))
    name, _, number = inner.partition(".")
    if (outer, name) in (("outputs", "paths"), ("cache", "inputs")) and number:
        return (outer, name, int(number))
    return (outer, inner) if inner else (outer,)
