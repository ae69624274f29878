"""Checks a document of triggers: types, names, conditions, bounds. Its fields are in the documentation, docs/pipelines.md.

Unknown fields are left out with a warning, because other programs write such files too; a wrong type is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_runner.errors import TriggersRefusedError
from agent_runner.job_spec import ENV_NAME
from agent_runner.workflow_spec import (
    CONDITIONS,
    MAX_WORKFLOW_NAME_CHARS,
    canonical_condition,
    check_vars,
)

MAX_JOBS = 100
"""Of all workflows of one document, after ``for_each``."""
MAX_NAME_CHARS = 150
MAX_PATH_CHARS = 1000

_JOB_FIELDS: dict[str, tuple[type, ...]] = {
    "job_command": (str, list),
    "steps": (list,),
    "raw_command": (bool,),
    "container_image": (str,),
    "code_dir": (str,),
    "job_dir": (str,),
    "working_dir": (str,),
    "run_as_user": (str,),
    "priority": (int,),
    "timeout": (int, float),
    "timeout_seconds": (int, float),
    "idle_timeout_seconds": (int, float),
    "capabilities": (list,),
    "resources": (dict,),
    "characteristics": (dict,),
    "sandbox": (dict,),
    "labels": (dict,),
    "retries": (dict,),
    "concurrency": (str, dict),
    "outputs": (list, dict),
    "description": (str,),
}
for _prefix in ("source", "ci_source"):
    for _name in ("type", "path", "url", "ref", "lfs", "credentials"):
        _JOB_FIELDS[f"{_prefix}_{_name}"] = (str,)
    _JOB_FIELDS[f"{_prefix}_depth"] = (int,)
    _JOB_FIELDS[f"{_prefix}_submodules"] = (bool,)
"""What a job may say in the document instead of, or over, a job file."""
_TYPES = {
    str: "text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}
_NAME = re.compile(r"[^\[\]/\\]*[^\[\]/\\\s.][^\[\]/\\]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedJob:
    """One job of a document as it is written."""

    name: str
    depends_on: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    condition: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    job_file: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a job file."""
    for_each: tuple[Any, ...] | None = None
    item_var: str = "ITEM"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedWorkflow:
    """Jobs that know each other by name."""

    name: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[AskedJob, ...] = ()


def check_document(
    document: Mapping[str, Any], warn: Callable[[str], None]
) -> tuple[AskedWorkflow, ...]:
    """Return the workflows of a document.

    Raises:
        TriggersRefusedError: The first rule that it breaks, with its place.
    """
    reader = _Reader(warn)
    kind = reader.text(document, "type", "", "trigger_job")
    if kind != "trigger_job":
        raise TriggersRefusedError("type", "must be trigger_job")
    for name in ("operation_id", "trigger_type"):
        reader.text(document, name, "", "")
    reader.unknown(
        document, "", ("type", "operation_id", "trigger_type", "workflow", "workflows", "jobs")
    )
    if "workflows" in document:
        listed = reader.take(document, "workflows", "", list, [])
        for place in ("jobs", "workflow"):
            if place in document:
                warn(f"{place}: is not read beside workflows")
        return tuple(
            reader.workflow(one, f"workflows.{number}", with_jobs=True)
            for number, one in enumerate(listed)
        )
    workflow = reader.workflow(
        reader.take(document, "workflow", "", dict, {}), "workflow", with_jobs=False
    )
    jobs = reader.jobs(document, "")
    return (AskedWorkflow(name=workflow.name, variables=workflow.variables, jobs=jobs),)


def check_output(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables and outputs of a ``workflow-output.json``.

    Raises:
        TriggersRefusedError: It is none; says where.
    """
    found: dict[str, Any] = {}
    for name in ("vars", "outputs"):
        try:
            found[name] = check_vars(document.get(name, {}))
        except ValueError as error:
            raise TriggersRefusedError(name, str(error)) from None
    return found


class _Reader:
    """Takes fields of one document, each with its place."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def workflow(self, given: Any, place: str, *, with_jobs: bool) -> AskedWorkflow:
        if not isinstance(given, dict):
            raise TriggersRefusedError(place, "must be an object")
        name = self.text(given, "name", place, "")
        if len(name) > MAX_WORKFLOW_NAME_CHARS or not name.isprintable():
            raise TriggersRefusedError(
                f"{place}.name", f"must be at most {MAX_WORKFLOW_NAME_CHARS} printable characters"
            )
        try:
            variables = check_vars(given.get("vars", {}))
        except ValueError as error:
            raise TriggersRefusedError(f"{place}.vars", str(error)) from None
        known = ("name", "vars", "jobs") if with_jobs else ("name", "vars")
        self.unknown(given, place, known)
        jobs = self.jobs(given, place) if with_jobs else ()
        return AskedWorkflow(name=name, variables=variables, jobs=jobs)

    def jobs(self, given: Mapping[str, Any], place: str) -> tuple[AskedJob, ...]:
        listed = self.take(given, "jobs", place, list, [])
        if len(listed) > MAX_JOBS:
            raise TriggersRefusedError(_at(place, "jobs"), f"lists more than {MAX_JOBS} jobs")
        return tuple(
            self._job(one, _at(place, f"jobs.{number}")) for number, one in enumerate(listed)
        )

    def _job(self, given: Any, place: str) -> AskedJob:
        if not isinstance(given, dict):
            raise TriggersRefusedError(place, "must be an object")
        # Other programs write null for what they leave out.
        given = {key: value for key, value in given.items() if value is not None}
        if "job_name" not in given:
            raise TriggersRefusedError(f"{place}.job_name", "is missing")
        name = self.text(given, "job_name", place, "")
        if len(name) > MAX_NAME_CHARS or not name.isprintable() or not _NAME.fullmatch(name):
            raise TriggersRefusedError(
                f"{place}.job_name",
                f"must be 1 to {MAX_NAME_CHARS} printable characters without / \\ [ ]",
            )
        place = f"{place} ({name})"
        self.unknown(given, place, (*_OWN_FIELDS, *_JOB_FIELDS))
        return AskedJob(
            name=name,
            depends_on=self._names(given, "depends_on", place),
            inputs=self._names(given, "inputs", place),
            condition=self._condition(given, place),
            env=self._env(given, place),
            job_file=self._job_file(given, place),
            fields={key: self._field(given, key, place) for key in given if key in _JOB_FIELDS},
            for_each=self._items(given, place),
            item_var=self._item_var(given, place),
        )

    def take(
        self, given: Mapping[str, Any], name: str, place: str, kind: type, default: Any
    ) -> Any:
        value = given.get(name, default)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise TriggersRefusedError(_at(place, name), f"must be {_TYPES[kind]}")
        return value

    def text(self, given: Mapping[str, Any], name: str, place: str, default: str) -> str:
        text: str = self.take(given, name, place, str, default)
        return text

    def unknown(self, given: Mapping[str, Any], place: str, known: tuple[str, ...]) -> None:
        for name in given:
            if name not in known:
                self._warn(f"{_at(place, name)[:300]}: unknown field, not read")

    def _names(self, given: Mapping[str, Any], field: str, place: str) -> tuple[str, ...]:
        listed = self.take(given, field, place, list, [])
        for number, name in enumerate(listed):
            if not isinstance(name, str):
                raise TriggersRefusedError(f"{place}.{field}.{number}", "must be text")
        return tuple(dict.fromkeys(listed))

    def _condition(self, given: Mapping[str, Any], place: str) -> str:
        condition = canonical_condition(self.text(given, "condition", place, ""))
        if condition not in CONDITIONS:
            raise TriggersRefusedError(
                f"{place}.condition", "must be all_success, any_failed or always"
            )
        return condition

    def _env(self, given: Mapping[str, Any], place: str) -> dict[str, str]:
        env: dict[str, str] = self.take(given, "env", place, dict, {})
        for name, value in env.items():
            if not ENV_NAME.fullmatch(name):
                raise TriggersRefusedError(f"{place}.env", f"{name[:100]!r} is not a variable name")
            if not isinstance(value, str):
                raise TriggersRefusedError(f"{place}.env.{name}", "must be text")
        return env

    def _job_file(self, given: Mapping[str, Any], place: str) -> str:
        path = self.text(given, "job_file", place, "")
        names = set(path.split("/"))
        outside = path.startswith("/") or ".." in names or (path and names <= {"", "."})
        if len(path) > MAX_PATH_CHARS or outside:
            raise TriggersRefusedError(
                f"{place}.job_file", "must be a path below the source of this job"
            )
        return path

    def _field(self, given: Mapping[str, Any], name: str, place: str) -> Any:
        kinds = _JOB_FIELDS[name]
        value = given[name]
        if not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool)):
            raise TriggersRefusedError(
                f"{place}.{name}", f"must be {' or '.join(_TYPES[kind] for kind in kinds)}"
            )
        return value

    def _items(self, given: Mapping[str, Any], place: str) -> tuple[Any, ...] | None:
        if "for_each" not in given:
            return None
        items = self.take(given, "for_each", place, list, [])
        if len(items) > MAX_JOBS:
            raise TriggersRefusedError(f"{place}.for_each", f"lists more than {MAX_JOBS} values")
        for number, item in enumerate(items):
            if item is None or isinstance(item, list):
                raise TriggersRefusedError(
                    f"{place}.for_each.{number}", "must be text, a number, true, false or an object"
                )
        return tuple(items)

    def _item_var(self, given: Mapping[str, Any], place: str) -> str:
        name = self.text(given, "item_var", place, "ITEM")
        if not ENV_NAME.fullmatch(name):
            raise TriggersRefusedError(f"{place}.item_var", "is not a variable name")
        return name


_OWN_FIELDS = (
    *("job_name", "depends_on", "inputs", "condition"),
    *("env", "job_file", "for_each", "item_var"),
)


def _at(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
