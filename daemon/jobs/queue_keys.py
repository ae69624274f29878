"""The project of a job within the texts by which the database finds it, so that projects need no index of their own.

A text of the default project is as it was before there were projects; one of another begins with its name and a line
feed, which no name and none of these texts holds. So an index that has all jobs with equal labels together has those of
one project together, too, and a claim for a project never meets a job of another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from agent_runner.job_spec import JobSpec
from agent_runner.project_names import DEFAULT_PROJECT
from daemon.jobs.labels import label_key

_END = "\n"
_AFTER_END = "\v"
FIRST_OF_DEFAULT = "{"
"""Sorts after every name of a project, and begins each set of labels."""


def queue_key(spec: JobSpec) -> str:
    """Return the text that jobs of one project with equal labels share."""
    return _within(spec.project, label_key(spec.labels))


def group_key(spec: JobSpec) -> str | None:
    """Return the name of a job's concurrency group, which other projects may have, too; None without one."""
    if spec.concurrency is None:
        return None
    group = spec.concurrency.group
    if _END in group:
        return f"{spec.project or DEFAULT_PROJECT}{_END}{group}"
    return _within(spec.project, group)


def request_key(project: str, request_id: str | None) -> str | None:
    """Return a request id so that no other project can have used it; None for none."""
    return None if request_id is None else _within(project, request_id)


def workflow_key(project: str, workflow_id: str) -> str:
    """Return the id of a workflow so that jobs of no other project are part of it: ids are chosen by clients."""
    return _within(project, workflow_id)


def project_of(key: str) -> str:
    """Return the project of a text of ``queue_key``."""
    project, end, _ = key.partition(_END)
    return project if end else DEFAULT_PROJECT


def keys_of(projects: Iterable[str], label_keys: Sequence[str]) -> list[str]:
    """Return the text for each project and each set of labels."""
    return [_within(project, key) for project in projects for key in label_keys]


def key_range(project: str) -> tuple[str, str]:
    """Return the first text that a project may have and the first beyond all of them."""
    if project == DEFAULT_PROJECT:
        return FIRST_OF_DEFAULT, chr(ord(FIRST_OF_DEFAULT) + 1)
    return project + _END, project + _AFTER_END


def is_served(key: str, projects: Collection[str] | None) -> bool:
    """Tell whether the project of a text is one of some; None is all."""
    return projects is None or project_of(key) in projects


def is_of(spec: JobSpec, projects: Collection[str] | None) -> bool:
    """Tell whether a job is of one of some projects; None is all, and an empty name is the default one."""
    mine = spec.project or DEFAULT_PROJECT
    return projects is None or any(mine == (one or DEFAULT_PROJECT) for one in projects)


def _within(project: str, text: str) -> str:
    return text if project in ("", DEFAULT_PROJECT) else f"{project}{_END}{text}"
