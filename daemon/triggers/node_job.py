"""The job of one node of a graph: its job file, its own fields laid over that, and what it has from its parent.

Imports pydantic and the YAML parser, so it is imported where a graph really has nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from agent_runner.errors import TriggersRefusedError
from agent_runner.job_spec import JobSpec
from agent_runner.triggers.graph import Node
from daemon.errors import InvalidJobFileError
from daemon.jobfile.dialect import flatten
from daemon.jobfile.loader import load_job_file
from daemon.jobfile.overlay import Overlay
from daemon.jobfile.problem import Problem
from daemon.jobfile.reading import read_tree

OWN = "node.json"
_OWN_PLACE = re.compile(rf"^{re.escape(OWN)}:[0-9]+:[0-9]+: ")
_OWN_LINE = re.compile(r" \((?:first in )?line 1\)")
"""Of fields that nobody has written like this."""


class JobFileText(NamedTuple):
    """A job file that a node names."""

    name: str
    content: bytes
    base_dir: Path
    """Where relative paths in it start."""


class NodeJob(NamedTuple):
    """What a node asks for."""

    spec: JobSpec
    given: frozenset[str]
    """Fields that the file or the node gives, under their present names."""


def node_job(
    node: Node,
    file: JobFileText | None,
    base_dir: Path,
    place: str,
    *,
    to_run_here: bool = False,
) -> NodeJob:
    """Return the job of a node; its dependencies and its condition are left to the caller.

    Args:
        node: Of a checked graph.
        file: Its job file, if it names one.
        base_dir: Where relative paths of the node's own fields start.
        place: Of the node, for errors.
        to_run_here: Without a server, which a job may refuse.

    Raises:
        TriggersRefusedError: It is no job; says what is wrong, in one line.
    """
    own = json.dumps(_own_fields(node)).encode()
    name, content, folder = file or JobFileText(OWN, own, base_dir)
    overlays = [Overlay(OWN, own, base_dir)] if file else []
    try:
        spec = load_job_file(
            content,
            name,
            folder,
            overlays=overlays,
            allow_secret_overrides=True,
            to_run_here=to_run_here,
        )
        given = _given(content, name) | (_given(own, OWN) if file else frozenset())
    except InvalidJobFileError as error:
        problem, own_place = _OWN_PLACE.subn("", str(error).splitlines()[0])
        if own_place:
            problem = _OWN_LINE.sub("", problem)
        raise TriggersRefusedError(place, problem) from None
    named = replace(spec, name=node.name, depends_on=(), condition="", inputs=())
    return NodeJob(named, given)


def _own_fields(node: Node) -> dict[str, Any]:
    fields: dict[str, Any] = dict(node.fields)
    user = fields.pop("run_as_user", None)
    if user is not None:
        fields["run_as"] = {"user": user}
    if node.env:
        fields["env"] = dict(node.env)
    return fields


@lru_cache(maxsize=8)
def _given(content: bytes, name: str) -> frozenset[str]:
    try:
        return frozenset(flatten(read_tree(content, name)).data)
    except Problem as problem:  # it was read a moment ago
        raise RuntimeError(f"{name} cannot be read any more") from problem


def base_dir_of(spec: JobSpec) -> Path:
    """Return where relative paths of a triggered job start: in the folder that its parent was copied from."""
    return Path(spec.source.path) if spec.source.kind == "copy" else Path("/")


def files_by_name(files: Mapping[str, str], parent: JobSpec) -> dict[str, JobFileText]:
    """Return the job files of a document by their names; relative paths in them start where the parent's source lies."""
    base_dir = base_dir_of(parent)
    return {
        name: JobFileText(PurePosixPath(name).name or name, text.encode(), base_dir)
        for name, text in files.items()
    }
