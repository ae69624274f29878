"""Files laid over a job file, in order: what they say replaces what it says, and mappings are merged."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from agent_runner.errors import InvalidJobSpecError
from agent_runner.secret_refs import find_refs
from daemon.jobfile.dialect import flatten
from daemon.jobfile.flat_job import FlatJob
from daemon.jobfile.flat_job import Path as FieldPath
from daemon.jobfile.problem import START, Problem, invalid_job_file
from daemon.jobfile.reading import read_tree
from daemon.jobfile.source_paths import source_path
from daemon.jobfile.tree import Data

MAX_OVERLAYS = 20


class Overlay(NamedTuple):
    """One file, unread."""

    name: str
    content: bytes
    base_dir: Path
    """Folder to which its ``source_path`` is relative."""


def lay_over(flat: FlatJob, overlay: Overlay, *, allow_secret_overrides: bool) -> None:
    """Merge one file into a job.

    Args:
        flat: The job; changed.
        overlay: The file.
        allow_secret_overrides: Whether plain text may take the place of a secret reference.

    Raises:
        InvalidJobFileError: The file cannot be read at all.
    """
    try:
        other = flatten(read_tree(overlay.content, overlay.name))
    except Problem as problem:
        raise invalid_job_file(overlay.name, [problem]) from problem
    for name in ("source_path", "ci_source_path"):
        path = other.data.get(name)
        if isinstance(path, str) and path:
            other.data[name] = source_path(overlay.base_dir, path)

    def allowed(path: FieldPath, value: Data) -> bool:
        return allow_secret_overrides or not _reveals(_at(flat, path), value)

    flat.lay_over(other, overlay.name, allowed)


def too_many(count: int) -> Problem:
    """Return the problem of more overlays than are read."""
    return Problem(START, "", f"{count} files are laid over it; at most {MAX_OVERLAYS} can be")


def _at(flat: FlatJob, path: FieldPath) -> Data:
    node: Data = flat.data
    for name in path:
        node = node.get(str(name)) if isinstance(node, dict) else None
    return node


def _reveals(mine: Data, value: Data) -> bool:
    """Tell whether plain text takes the place of a reference."""
    return (
        isinstance(mine, str)
        and _is_reference(mine)
        and not (isinstance(value, str) and _is_reference(value))
    )


def _is_reference(text: str) -> bool:
    try:
        return bool(find_refs({"text": text}))
    except InvalidJobSpecError:  # a malformed one was meant to be one
        return True
