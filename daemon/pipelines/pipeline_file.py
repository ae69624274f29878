"""Reads a pipeline file: jobs by name, each a job file, fields laid over it, and what it waits for.

Imports pydantic and the YAML parser.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent_runner.errors import InvalidJobSpecError, TriggersRefusedError
from agent_runner.job_spec import ENV_NAME, JobSpec
from agent_runner.secret_refs import check_refs
from agent_runner.triggers.document import MAX_JOBS, AskedJob, AskedWorkflow
from agent_runner.triggers.graph import Graph, graphs_of
from agent_runner.triggers.strict_json import MAX_DIGITS
from agent_runner.workflow_spec import (
    CONDITIONS,
    MAX_WORKFLOW_NAME_CHARS,
    canonical_condition,
    check_vars,
)
from daemon.jobfile.problem import START, Mark, Problem, did_you_mean, invalid_job_file
from daemon.jobfile.reading import read_tree
from daemon.jobfile.tree import Entry, Mapping, Node, Scalar, Sequence, to_data
from daemon.triggers.node_job import JobFileText, node_job

FIELDS = ("name", "description", "on", "vars", "jobs")
_OF_A_JOB = ("job_command", "command", "steps")
OWN = (
    *("job_file", "depends_on", "inputs", "condition"),
    *("for_each", "item_var", "environment", "env"),
)
MAX_JOB_FILE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A pipeline that was read and checked."""

    name: str
    graph: Graph
    specs: MappingOf[str, JobSpec]
    """By the name of the node; without dependencies and workflow."""
    variables: dict[str, Any] = field(default_factory=dict)


def load_pipeline(content: bytes, name: str, folder: Path, *, to_run_here: bool) -> Pipeline:
    """Read a pipeline.

    Args:
        content: Of the file.
        name: As the user typed it.
        folder: Where the file lies; job files are looked up in ``../jobs`` beside it, and then in it.
        to_run_here: A job may refuse that.

    Raises:
        InvalidJobFileError: It is none; says where, in one line.
    """
    reader = _Reader(folder)
    try:
        workflow = reader.read(read_tree(content, name))
        try:
            (graph,) = graphs_of((workflow,), ())
            specs = reader.specs(graph, to_run_here=to_run_here)
        except TriggersRefusedError as error:
            raise reader.problem(error) from None
    except Problem as problem:
        raise invalid_job_file(name, [problem]) from problem
    return Pipeline(
        name=workflow.name or _default_name(name),
        graph=graph,
        specs=specs,
        variables=dict(workflow.variables),
    )


def is_pipeline(content: bytes, name: str) -> bool:
    """Tell whether a file means to be one: it has ``jobs``. False for what cannot be read at all."""
    try:
        return "jobs" in read_tree(content, name).entries
    except Problem:
        return False


class _Reader:
    """Reads one file and remembers where everything stands."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start = START
        self._jobs: dict[str, Entry] = {}

    def read(self, root: Mapping) -> AskedWorkflow:
        for key, entry in root.entries.items():
            if key not in FIELDS:
                hint = did_you_mean(key, FIELDS)
                hint = "; `runner run-local` runs a file of one job" if key in _OF_A_JOB else hint
                raise Problem(entry.mark, key, f"unknown field{hint}")
        jobs = root.entries.get("jobs")
        if jobs is None:
            raise Problem(root.mark, "jobs", "is missing")
        if not isinstance(jobs.node, Mapping) or not jobs.node.entries:
            raise Problem(jobs.node.mark, "jobs", "must be a mapping of names to jobs")
        if len(jobs.node.entries) > MAX_JOBS:
            raise Problem(jobs.node.mark, "jobs", f"lists more than {MAX_JOBS} jobs")
        self._start, self._jobs = jobs.mark, jobs.node.entries
        return AskedWorkflow(
            name=_name(root),
            variables=_variables(root),
            jobs=tuple(self._job(name, entry) for name, entry in self._jobs.items()),
        )

    def specs(self, graph: Graph, *, to_run_here: bool) -> dict[str, JobSpec]:
        files: dict[str, JobFileText] = {}
        found = {}
        for node in graph.nodes:
            place = f"jobs.{node.name}"
            if node.job_file and node.job_file not in files:
                files[node.job_file] = self._file(node.job_file, node.name)
            file = files.get(node.job_file)
            spec, _ = node_job(node, file, self._folder, place, to_run_here=to_run_here)
            try:
                # With dependencies that stand for those that the node has.
                depends_on = tuple(f"x{number}" for number in range(max(1, len(node.depends_on))))
                probe = replace(spec, depends_on=depends_on, condition=node.condition)
                replace(probe, inputs=node.inputs).validate()
                check_refs(spec)
            except InvalidJobSpecError as error:
                raise TriggersRefusedError(place, str(error)) from None
            found[node.name] = spec
        return found

    def problem(self, error: TriggersRefusedError) -> Problem:
        """Return an error with the place of the job, and of the field, that it is about."""
        for name in sorted(self._jobs, key=len, reverse=True):
            one = rf"{re.escape(name)}(?:\[[0-9]+\])?"
            pattern = rf"jobs(?:\.({one})| \(({one})\))(\..*)?"
            found = re.fullmatch(pattern, error.place, re.DOTALL)
            if found:
                place = f"jobs.{found[1] or found[2]}{found[3] or ''}"
                inner = (found[3] or "").lstrip(".") or error.problem.partition(":")[0]
                return Problem(_mark_of(self._jobs[name], inner), place, error.problem)
        return Problem(self._start, error.place, error.problem)

    def _job(self, name: str, entry: Entry) -> AskedJob:
        place = f"jobs.{name}"
        node = entry.node
        if not isinstance(node, Mapping):
            raise Problem(node.mark, place, "must be a mapping of fields")
        if not name or any(char in name for char in "[]/\\") or not name.isprintable():
            raise Problem(entry.mark, place, "must be printable, without / \\ [ ]")
        condition = canonical_condition(_text(node, "condition", place))
        if condition not in CONDITIONS:
            mark = node.entries["condition"].node.mark
            raise Problem(mark, f"{place}.condition", "must be all_success, any_failed or always")
        item_var = _text(node, "item_var", place) or "ITEM"
        if not ENV_NAME.fullmatch(item_var):
            mark = node.entries["item_var"].node.mark
            raise Problem(mark, f"{place}.item_var", "is not a variable name")
        return AskedJob(
            name=name,
            depends_on=_names(node, "depends_on", place),
            inputs=_names(node, "inputs", place),
            condition=condition,
            env=_env(node, place),
            job_file=_text(node, "job_file", place),
            fields={
                key: to_data(inner.node) for key, inner in node.entries.items() if key not in OWN
            },
            for_each=_items(node, place),
            item_var=item_var,
        )

    def _file(self, path: str, job: str) -> JobFileText:
        for candidate in (self._folder.parent / "jobs" / path, self._folder / path):
            content = _content(candidate)
            if content is not None:
                return JobFileText(path, content, candidate.absolute().parent)
        text = f"is neither in {self._folder.parent / 'jobs'} nor in {self._folder}"
        raise TriggersRefusedError(f"jobs.{job}.job_file", text)


def _content(path: Path) -> bytes | None:
    """Return what a file holds; None if there is none. Nothing that could be waited for is read: a FIFO, a terminal."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return file.read(MAX_JOB_FILE_BYTES + 1)
    except (OSError, ValueError):  # the second for a NUL character
        pass
    return None


def _mark_of(entry: Entry, field_name: str) -> Mark:
    node = entry.node
    mark = entry.mark
    for name in field_name.split("."):
        if not isinstance(node, Mapping) or name not in node.entries:
            break
        mark = node.entries[name].mark
        node = node.entries[name].node
    return mark


def _default_name(file: str) -> str:
    """Return the name of a pipeline whose file gives none."""
    stem = Path(file).stem[:MAX_WORKFLOW_NAME_CHARS]
    return stem if stem.isprintable() else "pipeline"


def _name(root: Mapping) -> str:
    name = _text(root, "name", "")
    if len(name) > MAX_WORKFLOW_NAME_CHARS or not name.isprintable():
        text = f"must be at most {MAX_WORKFLOW_NAME_CHARS} printable characters"
        raise Problem(root.entries["name"].node.mark, "name", text)
    return name


def _text(node: Mapping, name: str, place: str) -> str:
    entry = node.entries.get(name)
    if entry is None:
        return ""
    if not isinstance(entry.node, Scalar) or entry.node.kind != "text":
        raise Problem(entry.node.mark, f"{place}.{name}".lstrip("."), "must be text")
    return entry.node.text


def _names(node: Mapping, name: str, place: str) -> tuple[str, ...]:
    entry = node.entries.get(name)
    if entry is None:
        return ()
    items = entry.node.items if isinstance(entry.node, Sequence) else [entry.node]
    for item in items:
        if not isinstance(item, Scalar) or item.kind == "null":
            raise Problem(item.mark, f"{place}.{name}", "must be a list of names of jobs")
    return tuple(dict.fromkeys(item.text for item in items if isinstance(item, Scalar)))


def _env(node: Mapping, place: str) -> dict[str, str]:
    given = [name for name in ("env", "environment") if name in node.entries]
    if not given:
        return {}
    entry = node.entries[given[-1]]
    if len(given) > 1:
        raise Problem(entry.mark, f"{place}.environment", "means the same as env; keep one of them")
    value = to_data(entry.node, source_text=True)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Problem(entry.node.mark, f"{place}.{given[0]}", "must be a mapping of names to texts")
    return {name: str(text) for name, text in value.items()}


def _items(node: Mapping, place: str) -> tuple[Any, ...] | None:
    entry = node.entries.get("for_each")
    if entry is None:
        return None
    if not isinstance(entry.node, Sequence) or len(entry.node.items) > MAX_JOBS:
        raise Problem(
            entry.node.mark, f"{place}.for_each", f"must be a list of up to {MAX_JOBS} values"
        )
    for item in entry.node.items:
        if isinstance(item, Sequence) or (isinstance(item, Scalar) and item.kind == "null"):
            raise Problem(item.mark, f"{place}.for_each", "must hold texts, numbers or mappings")
        _check_numbers(item, f"{place}.for_each")
    return tuple(to_data(item) for item in entry.node.items)


def _variables(root: Mapping) -> dict[str, Any]:
    entry = root.entries.get("vars")
    if entry is None:
        return {}
    _check_numbers(entry.node, "vars")
    try:
        return check_vars(to_data(entry.node))
    except ValueError as error:
        raise Problem(entry.node.mark, "vars", str(error)) from None


def _check_numbers(node: Node, place: str) -> None:
    """Refuse what is no number of JSON, in which jobs get it.

    Raises:
        Problem: One is infinite, none at all, or so long that it would become another.
    """
    if isinstance(node, Mapping):
        for entry in node.entries.values():
            _check_numbers(entry.node, place)
    elif isinstance(node, Sequence):
        for item in node.items:
            _check_numbers(item, place)
    elif node.kind in {"int", "float"}:
        value = node.value()
        if len(node.text) > MAX_DIGITS or not isinstance(value, int | float):
            raise Problem(node.mark, place, f"holds a number of more than {MAX_DIGITS} digits")
        if not math.isfinite(value):
            raise Problem(node.mark, place, "holds a number that JSON does not have")
