"""Asks the runner for jobs that follow this one, and passes values on to them.

Used by scripts of a job: ``from workflow import trigger_job, flush_triggers``. Nothing happens before this job has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import uuid
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from runnerlib.facts import fact, job_root

__all__ = [
    "flush_triggers",
    "set_workflow_output",
    "set_workflow_var",
    "trigger_job",
    "workflow_vars",
]

TRIGGERS = "triggers.json"
OUTPUT = "workflow-output.json"
VARS = "workflow-vars.json"
LOCK = ".workflow.lock"

_pending: List[Dict[str, Any]] = []


def trigger_job(  # noqa: PLR0913, PLR0917 - one per field of the format
    job_name: str,
    env: Optional[Mapping[str, str]] = None,
    depends_on: Optional[Sequence[str]] = None,
    condition: str = "all_success",
    job_file: Optional[str] = None,
    for_each: Optional[Sequence[Any]] = None,
    item_var: Optional[str] = None,
    **fields: Any,
) -> None:
    """Note a job that is to follow; ``flush_triggers`` writes it down.

    Args:
        job_name: Its name; without ``job_file`` and ``job_command`` also that of its file, ``jobs/NAME.yaml``.
        env: Variables; a value may hold ``${secret:PATH:KEY}``.
        depends_on: Names of other triggered jobs, or of this one; by default this one.
        condition: ``all_success``, ``any_failed`` or ``always``.
        job_file: A job file in the source.
        for_each: Values; there is one job for each.
        item_var: The variable that holds the value; ``ITEM`` by default.
        fields: Of a job file, such as ``job_command``.

    Raises:
        ValueError: A variable of ``env`` is no text, or the job has no name.
    """
    if not job_name or not isinstance(job_name, str):
        raise ValueError("a triggered job needs a name")
    job: Dict[str, Any] = {
        "job_name": job_name,
        "depends_on": list(depends_on or ()),
        "condition": condition,
    }
    given: Dict[str, Any] = {
        "env": _texts(env),
        "job_file": job_file,
        "item_var": item_var,
    }
    given["for_each"] = for_each if for_each is None else list(for_each)
    given.update(fields)
    _pending.append({**job, **{name: value for name, value in given.items() if value is not None}})


def flush_triggers(workflow: Optional[str] = None) -> str:
    """Write the noted jobs behind those that are written already, and return the path of the file.

    Args:
        workflow: A name for people; jobs with another name than this job's workflow share no variables with it.

    Raises:
        OSError: The file cannot be written.
        ValueError: There is such a file already, and it is none of ours.
    """
    path = os.path.join(job_root(), TRIGGERS)
    with _locked():
        document = _read(path) or {
            "type": "trigger_job",
            "operation_id": str(uuid.uuid4()),
            "trigger_type": "runnerlib",
            "workflow": {"name": "", "vars": {}},
            "jobs": [],
        }
        if workflow is not None:
            document["workflow"]["name"] = workflow
        document["jobs"].extend(_pending)
        _write(path, document)
    del _pending[:]
    return path


def set_workflow_var(name: str, value: Any) -> None:
    """Give a variable to all jobs of this workflow that start after this one has ended."""
    _note("vars", name, value)


def set_workflow_output(name: str, value: Any) -> None:
    """Give a value to them as ``THIS JOB'S NAME.name``."""
    _note("outputs", name, value)


def workflow_vars() -> Dict[str, Any]:
    """Return the variables of this job's workflow; empty if it is part of none."""
    inline = fact("WF_VARS_JSON")
    if inline:
        return dict(json.loads(inline))
    return _read(fact("WF_VARS_FILE") or os.path.join(job_root(), VARS)) or {}


def _texts(env: Optional[Mapping[str, str]]) -> Optional[Dict[str, str]]:
    for name, value in (env or {}).items():
        if not isinstance(value, str):
            raise ValueError("env[{!r}] must be text".format(name))  # noqa: TRY004 - as for the name
    return dict(env) if env else None


def _note(kind: str, name: str, value: Any) -> None:
    path = fact("WF_OUTPUT_FILE") or os.path.join(job_root(), OUTPUT)
    with _locked():
        document = _read(path) or {}
        document.setdefault(kind, {})[name] = value
        _write(path, document)


def _read(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    if not text:
        return None
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("{} holds no object".format(path))  # noqa: TRY004 - the file is wrong
    return document


def _write(path: str, document: Mapping[str, Any]) -> None:
    """Write a file so that it is whole or as it was, where that can be."""
    text = json.dumps(document, indent=2, sort_keys=True)
    try:
        fd, temporary = tempfile.mkstemp(prefix=".workflow-", dir=os.path.dirname(path))
    except PermissionError:
        # Where the workspace itself cannot be written, the file is there, and only that can be.
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Keep other processes of this job out."""
    with open(os.path.join(job_root(), LOCK), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
