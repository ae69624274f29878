"""Turns the spellings of a job file into one flat set of fields.

The dialect of the first generation says ``command``, ``environment``, ``timeout``, nests fields below ``job:``,
``source:`` or ``container:``, and asks for resources as Kubernetes does. Both spellings of one field at once are an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from daemon.jobfile.flat_job import FlatJob
from daemon.jobfile.problem import Problem, did_you_mean
from daemon.jobfile.tree import Entry, Mapping, Node, Scalar, Sequence

SOURCE_PARTS = ("type", "path", "url", "ref", "depth", "submodules", "lfs", "credentials")
"""What follows ``source_`` and ``ci_source_``, and stands in a nested ``source:``."""
FIELDS = (
    "name",
    "description",
    "job_command",
    "steps",
    "raw_command",
    *(f"source_{name}" for name in SOURCE_PARTS),
    *(f"ci_source_{name}" for name in SOURCE_PARTS),
    "container_image",
    "code_dir",
    "job_dir",
    "env",
    "timeout_seconds",
    "idle_timeout_seconds",
    "sandbox",
    "labels",
    "project",
    "priority",
    "retries",
    "concurrency",
    "depends_on",
    "condition",
    "inputs",
    "not_before",
    "masking",
    "max_attempts",
    "outputs",
    "cache",
    "disable_run_local",
    "triggers",
    "paths",
)
OLDER = {
    "command": "job_command",
    "commands": "steps",
    "environment": "env",
    "image": "container_image",
    "timeout": "timeout_seconds",
    "working_dir": "job_dir",
}
NESTED = {
    "job": None,
    "source": SOURCE_PARTS,
    "ci_source": SOURCE_PARTS,
    "container": ("image", "working_dir"),
    "run_as": ("user",),
    "run_local": ("user", "as_runner"),
    "resources": ("cpu", "memory"),
    "characteristics": ("os", "arch"),
}
"""Fields that hold others, and which; ``job`` holds any."""

NOT_YET = frozenset(
    {
        "agent",
        "artifacts",
        "for_each",
        "gates",
        "on",
    }
)
_NOT_YET_INSIDE = {
    "sandbox": frozenset({"nested_docker", "user"}),
}
_NOT_YET_VALUES = {
    "kind": frozenset({"docker", "kubernetes", "podman"}),
}
_LATER = "is not supported by this version yet"
_RUNNER = "runner"
"""The one user of older files that every sandbox has: somebody without rights."""
_CPUS = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(m?)")


def flatten(root: Mapping) -> FlatJob:
    """Return the fields of a whole file."""
    flat = FlatJob()
    flat.begin(root.mark)
    reader = _Reader(flat)
    for name, entry in root.entries.items():
        reader.take(name, name, entry)
    for outer, name, spelled, entry in reader.inner:
        flat.add_inner(outer, name, spelled, entry)
    return flat


class _Reader:
    """Takes one field after the other."""

    def __init__(self, flat: FlatJob) -> None:
        self._flat = flat
        self.inner: list[tuple[str, str, str, Entry]] = []
        """What older files say elsewhere for a part of a field; added once the fields are there."""

    def take(self, name: str, spelled: str, entry: Entry) -> None:
        """Take a field of the file, or of ``job``."""
        if name == "capabilities":
            self._take_capabilities(spelled, entry)
        elif name in NESTED and not (name == "job" and spelled != "job"):
            self._take_nested(name, spelled, entry)
        else:
            self._take_plain(name, spelled, entry)

    def _take_plain(self, name: str, spelled: str, entry: Entry) -> None:
        present = OLDER.get(name, name)
        if present in NOT_YET:
            self._refuse(entry, spelled, _LATER)
            return
        if present not in FIELDS:
            hint = did_you_mean(name, {*FIELDS, *OLDER, *NESTED} - {name})
            if name == "jobs" and isinstance(entry.node, Mapping):
                hint = "; `runner pipeline run` runs a file of several"
            self._refuse(entry, spelled, f"unknown field{hint}")
            return
        if present == "sandbox" and isinstance(entry.node, Mapping):
            entry = Entry(entry.mark, self._without_later(entry.node, spelled))
        if present == "outputs":
            entry = Entry(entry.mark, _with_paths(entry.node))
        self._flat.add(present, spelled, entry)

    def _without_later(self, node: Mapping, spelled: str) -> Mapping:
        """Return the sandbox without fields and values of later versions, which are reported."""
        kept: dict[str, Entry] = {}
        for name, entry in node.entries.items():
            inner = f"{spelled}.{name}"
            if name in _NOT_YET_INSIDE["sandbox"]:
                self._refuse(entry, inner, _LATER)
            elif _text(entry.node) in _NOT_YET_VALUES.get(name, ()):
                text = f"{_text(entry.node)} {_LATER}"
                self._flat.problems.append(Problem(entry.node.mark, inner, text))
            else:
                kept[name] = entry
        return Mapping(node.mark, kept)

    def _take_nested(self, name: str, spelled: str, entry: Entry) -> None:
        inside = NESTED[name]
        if not isinstance(entry.node, Mapping):
            what = "fields" if inside is None else ", ".join(inside[:4])
            text = (
                f"must be a mapping of {what}"
                if inside is None
                else f"must be a mapping with {what}"
            )
            self._flat.problems.append(Problem(entry.node.mark, spelled, text))
            return
        for inner_name, inner in entry.node.entries.items():
            full = f"{spelled}.{inner_name}"
            if inside is None:
                self.take(inner_name, full, inner)
            elif inner_name not in inside:
                self._refuse(inner, full, f"unknown field{did_you_mean(inner_name, inside)}")
            else:
                self._take_inside(name, inner_name, full, inner)

    def _take_inside(self, outer: str, name: str, spelled: str, entry: Entry) -> None:
        if outer in ("source", "ci_source"):
            self._flat.add(f"{outer}_{name}", spelled, entry)
        elif outer == "container":
            self._take_plain(name, spelled, entry)
        elif outer == "characteristics":
            self.inner.append(("labels", name, spelled, entry))
        elif outer == "resources":
            self._take_resource(name, spelled, entry)
        elif _text(entry.node) not in (_RUNNER, "true", "false"):
            self._refuse(entry, spelled, _LATER)

    def _take_resource(self, name: str, spelled: str, entry: Entry) -> None:
        """Take an amount, or a request, which binds nobody here, and a limit."""
        amount, place = entry, spelled
        if isinstance(entry.node, Mapping):
            known = ("request", "limit")
            for inner_name, inner in entry.node.entries.items():
                if inner_name not in known:
                    text = f"unknown field{did_you_mean(inner_name, known)}"
                    self._refuse(inner, f"{spelled}.{inner_name}", text)
            if "limit" not in entry.node.entries:
                return
            amount, place = entry.node.entries["limit"], f"{spelled}.limit"
        if name == "memory":
            self.inner.append(("sandbox", "memory", place, amount))
            return
        match = _CPUS.fullmatch(_text(amount.node))
        if match is None:
            text = "must be a number of CPUs, such as 500m or 2"
            self._flat.problems.append(Problem(amount.node.mark, place, text))
            return
        cpus = float(match[1]) / (1000 if match[2] else 1)
        node = Scalar(amount.node.mark, repr(cpus), "float")
        self.inner.append(("sandbox", "cpus", place, Entry(amount.mark, node)))

    def _take_capabilities(self, spelled: str, entry: Entry) -> None:
        """Take what an agent-runner must offer; each is a label."""
        if not isinstance(entry.node, Sequence):
            text = "must be a list of texts"
            self._flat.problems.append(Problem(entry.node.mark, spelled, text))
            return
        for number, item in enumerate(entry.node.items):
            place = f"{spelled}.{number}"
            if _text(item) == "docker":
                self._flat.problems.append(Problem(item.mark, place, f"docker {_LATER}"))
            elif not _text(item):
                self._flat.problems.append(Problem(item.mark, place, "must be text"))
            else:
                offered = Entry(item.mark, Scalar(item.mark, "true", "text"))
                self.inner.append(("labels", _text(item), place, offered))

    def _refuse(self, entry: Entry, spelled: str, text: str) -> None:
        self._flat.problems.append(Problem(entry.mark, spelled, text))


def _with_paths(node: Node) -> Node:
    """Return outputs as a mapping: a list stands for its paths, a text for the only one."""
    if isinstance(node, Scalar) and node.text:
        node = Sequence(node.mark, [node])
    if isinstance(node, Sequence):
        return Mapping(node.mark, {"paths": Entry(node.mark, node)})
    return node


def _text(node: Node) -> str:
    return node.text if isinstance(node, Scalar) else ""


def spellings() -> Iterable[str]:
    """Return every name that may stand at the top of a file."""
    return [*FIELDS, *OLDER, *NESTED, "capabilities"]
