"""What ``inputs`` of a job asks for: the outputs of jobs that it depends on. Leaf module beside ``job_spec``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent_runner.errors import InvalidJobSpecError, SourceError
from agent_runner.outcome import OutputFile

INPUTS_DIR = "inputs"
"""Below ``/job``; in it each job has a folder of its name."""
MAX_INPUT_CHARS = 200
MAX_FOLDER_CHARS = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class InputPiece(NamedTuple):
    """A part of what a job gets from others: a job begins, a file of it begins, or the file goes on."""

    job_name: str = ""
    file: OutputFile | None = None
    data: bytes = b""


def folder_name(job_name: str) -> str:
    """Return what the folder for a job's outputs is called."""
    plain = _UNSAFE.sub("-", job_name).strip(".-")
    return plain[:MAX_FOLDER_CHARS] or "job"


def check_inputs(inputs: Sequence[str], depends_on: Sequence[str], *, cached: bool) -> None:
    """Check the rules; called by ``JobSpec.validate`` for a job that has inputs.

    Raises:
        InvalidJobSpecError: The first rule that is broken.
    """
    if not depends_on:
        raise InvalidJobSpecError("inputs", "needs depends_on")
    if cached:
        raise InvalidJobSpecError(
            "inputs", "cannot be together with cache, which does not know them"
        )
    if len(inputs) > len(depends_on):
        raise InvalidJobSpecError("inputs", "lists more jobs than depends_on")
    for position, name in enumerate(inputs):
        if not name.strip() or len(name) > MAX_INPUT_CHARS or not is_text(name):
            raise InvalidJobSpecError(f"inputs.{position}", "is not the name of a job")
    if len(set(inputs)) < len(inputs):
        raise InvalidJobSpecError("inputs", "lists a job twice")
    check_folders("inputs", inputs)


def is_text(name: str) -> bool:
    """Tell whether a name can be stored, sent and shown: half of a surrogate pair cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name


def check_folders(field: str, names: Iterable[str]) -> None:
    """Check that no two jobs get the same folder.

    Raises:
        InvalidJobSpecError: Two do.
    """
    owners: dict[str, str] = {}
    for name in names:
        other = owners.setdefault(folder_name(name), name)
        if other != name:
            text = f"{other!r} and {name!r} would share the folder {folder_name(name)}"
            raise InvalidJobSpecError(field, text)


def chosen(inputs: Sequence[str], jobs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the ids of the jobs that are asked for; called per attempt that has inputs.

    Args:
        inputs: Names, or ids.
        jobs: Id and name of each job that it depends on.

    Raises:
        SourceError: One is asked for that there is not, or two have one name.
    """
    found = []
    for wanted in inputs:
        ids = [job_id for job_id, name in jobs if wanted in {name, job_id}]
        if len(ids) != 1:
            what = "no job that is kept" if not ids else "several jobs"
            raise SourceError(f"inputs: the job depends on {what} called {wanted!r}")
        found += ids
    return found
