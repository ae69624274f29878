"""Reads a job file: bytes to ``JobSpec``, or one error that names file, line, column and field.

Import it where a file is really read: it brings in pydantic and the YAML parser.
"""

from __future__ import annotations

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
    SandboxSpec,
    SourceSpec,
    shell_command,
)
from agent_runner.outcome import EndReason
from agent_runner.secret_refs import check_refs
from daemon.clock import SystemClock
from daemon.jobfile.dialect import SOURCE_PARTS, FlatJob
from daemon.jobfile.dialect import Path as FieldPath
from daemon.jobfile.json_tree import read_json
from daemon.jobfile.model import INNER_FIELDS, JobFields, MaskingFields, RetryFields
from daemon.jobfile.problem import START, Mark, Problem, did_you_mean, invalid_job_file
from daemon.jobfile.tree import Mapping, is_unicode
from daemon.jobfile.yaml_tree import read_yaml

MAX_FILE_BYTES = 256 * 1024
"""The YAML parser needs seconds for more, and no job file does."""

_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\0\0\xfe\xff": "UTF-32"}

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
}


def load_job_file(content: bytes, name: str, base_dir: Path, now_us: int | None = None) -> JobSpec:
    """Read a job file. Pure but for the working directory, which completes a relative ``base_dir``, and the clock.

    Args:
        content: The bytes of the file.
        name: The file's name as the user typed it; a name that ends in ``.json`` is read as JSON.
        base_dir: Folder to which ``source_path`` is relative.
        now_us: Moment from which a delay in ``not_before`` counts; by default this one.

    Raises:
        InvalidJobFileError: The file is not a job. One line for each problem, up to ten, in the
            order of the file: ``FILE:LINE:COL: FIELD: what is wrong``.
    """
    try:
        root = _read_tree(content, name)
    except Problem as problem:
        raise invalid_job_file(name, [problem]) from problem
    flat = FlatJob.from_tree(root)
    fields = _check_shape(flat)
    now_us = SystemClock().now_us() if now_us is None else now_us
    spec = _build(fields, name, base_dir, now_us) if fields else None
    if spec and not flat.problems:
        flat.problems += _broken_rules(spec, flat)
    if spec is None or flat.problems:
        raise invalid_job_file(name, flat.problems)
    return spec


def _read_tree(content: bytes, name: str) -> Mapping:
    text = _decode(content)
    is_json = PurePath(name).suffix.lower() == ".json"
    root = read_json(text) if is_json else read_yaml(text)
    if root is None:
        raise Problem(START, "", "the file is empty; a job needs at least job_command")
    if not isinstance(root, Mapping):
        raise Problem(root.mark, "", "a job must be a mapping of fields, such as job_command")
    return root


def _decode(content: bytes) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise Problem(START, "", f"the file is larger than {MAX_FILE_BYTES // 1024} KiB")
    for start, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(start):
            raise Problem(START, "", f"the file is encoded as {encoding}; save it as UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        good = content[: exc.start].decode()
        raise Problem(Mark.at(good, len(good)), "", "holds bytes that are not UTF-8") from exc
    if "\0" in text:
        raise Problem(Mark.at(text, text.index("\0")), "", "holds a NUL byte")
    return text


def _check_shape(flat: FlatJob) -> JobFields | None:
    """Return the typed fields, or None after adding to the problems."""
    try:
        return JobFields.model_validate(flat.data)
    except ValidationError as exc:
        # A file that asks for what comes later (an agent, steps) has no command to miss.
        later = bool(flat.problems)
        for error in exc.errors(include_url=False, include_context=True):
            if not (later and error["type"] == "missing"):
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
    command = fields.job_command
    sandbox = fields.sandbox
    group = fields.concurrency
    return JobSpec(
        argv=shell_command(command) if isinstance(command, str) else tuple(command),
        name=_default_name(name) if fields.name is None else fields.name,
        env=fields.env,
        source=_source(fields, "source", base_dir),
        ci_source=_source(fields, "ci_source", base_dir),
        code_dir=fields.code_dir,
        job_dir=fields.job_dir,
        timeout_s=fields.timeout_seconds,
        idle_timeout_s=fields.idle_timeout_seconds,
        sandbox=SandboxSpec(
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
        ),
        labels=fields.labels,
        priority=fields.priority,
        retries=_retries(fields.retries) if fields.retries else None,
        concurrency=ConcurrencySpec(group=group.group, limit=group.limit) if group else None,
        depends_on=tuple(fields.depends_on),
        not_before_us=fields.not_before.after(now_us) if fields.not_before else None,
        max_attempts=fields.max_attempts,
        masking=_masking(fields.masking),
    )


def _masking(field: str | MaskingFields) -> str:
    if isinstance(field, str):
        return "" if field == "on" else field
    return "" if field.formats == "on" else "values"


def _source(fields: JobFields, prefix: str, base_dir: Path) -> SourceSpec:
    given = {name: getattr(fields, f"{prefix}_{name}") for name in SOURCE_PARTS}
    kind, path = given.pop("type"), given.pop("path")
    return SourceSpec(kind=kind, path=str(base_dir.absolute() / path) if path else "", **given)


def _retries(fields: RetryFields) -> RetryPolicy:
    reasons = tuple(end for end in fields.on if isinstance(end, EndReason))
    codes = tuple(end for end in fields.on if not isinstance(end, EndReason))
    return RetryPolicy(
        max=fields.max, backoff_s=fields.backoff_seconds, exit_codes=codes, end_reasons=reasons
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
        return [flat.problem(_field_path(exc.field), exc.problem)]
    return []


def _field_path(field: str) -> FieldPath:
    """Return the path of a field as `validate` names it; names in maps may hold dots."""
    outer, _, inner = field.partition(".")
    if outer == "depends_on" and inner:
        return (outer, int(inner))
    if inner.startswith("network."):
        return (outer, "network", int(inner.removeprefix("network.")))
    return (outer, inner) if inner else (outer,)
