"""Turns the spellings of a job file into one flat set of fields.

The dialect of the first generation says ``command``, ``environment``, ``timeout``, and nests fields
below ``job:`` or ``source:``. Both spellings of one field at once are an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.jobfile.problem import Mark, Problem, did_you_mean
from daemon.jobfile.tree import Data, Entry, Mapping, Node, Scalar, Sequence, to_data

SOURCE_PARTS = ("type", "path", "url", "ref", "depth", "submodules", "lfs", "credentials")
"""What follows ``source_`` and ``ci_source_``, and stands in a nested ``source:``."""
FIELDS = (
    "name",
    "job_command",
    *(f"source_{name}" for name in SOURCE_PARTS),
    *(f"ci_source_{name}" for name in SOURCE_PARTS),
    "code_dir",
    "job_dir",
    "env",
    "timeout_seconds",
    "idle_timeout_seconds",
    "sandbox",
    "labels",
    "priority",
    "retries",
    "concurrency",
    "depends_on",
    "not_before",
    "masking",
    "max_attempts",
)
OLDER = {
    "command": "job_command",
    "environment": "env",
    "timeout": "timeout_seconds",
    "working_dir": "job_dir",
}
_SOURCES = ("source", "ci_source")

NOT_YET = frozenset(
    {
        "agent",
        "artifacts",
        "capabilities",
        "characteristics",
        "commands",
        "condition",
        "container",
        "container_image",
        "description",
        "disable_run_local",
        "for_each",
        "gates",
        "image",
        "on",
        "outputs",
        "paths",
        "raw_command",
        "resources",
        "run_as",
        "run_local",
        "steps",
        "triggers",
    }
)
_NOT_YET_INSIDE = {
    "sandbox": frozenset({"nested_docker", "user"}),
}
_NOT_YET_VALUES = {
    "kind": frozenset({"container", "docker", "kubernetes", "podman"}),
}
_LATER = "is not supported by this version yet"

Path = tuple[str | int, ...]


@dataclass(slots=True)
class FlatJob:
    """The fields of a job file under their present names."""

    data: dict[str, Data] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _spelled: dict[str, str] = field(default_factory=dict)
    _keys: dict[Path, Mark] = field(default_factory=dict)
    _values: dict[Path, Mark] = field(default_factory=dict)

    def add(self, name: str, spelled: str, entry: Entry) -> None:
        """Take one field; a second spelling of it is a problem."""
        if name in self._spelled:
            first = f"{self._spelled[name]} (line {self._keys[name,].line})"
            text = f"means the same as {first}; keep one of them"
            self.problems.append(Problem(entry.mark, spelled, text))
            return
        self._spelled[name] = spelled
        self.data[name] = to_data(entry.node, source_text=name == "env")
        self._remember((name,), entry)

    def has(self, name: str) -> bool:
        """Return whether the file gives a field, in whatever spelling."""
        return name in self._spelled

    def problem(self, path: Path, text: str, *, at_key: bool = False) -> Problem:
        """Return a problem of a field, at the nearest place that the file has for it.

        Args:
            path: Present names of the field and of what is inside it.
            text: What is wrong.
            at_key: Point at the name, not at the value.
        """
        marks = self._keys if at_key else self._values
        known = next((path[:size] for size in range(len(path), 0, -1) if path[:size] in marks), ())
        mark = marks[known] if known else self._values[()]
        spelled = self._spelled.get(str(path[0]), str(path[0])) if path else ""
        return Problem(mark, ".".join([spelled, *map(str, path[1:])]), text)

    def _remember(self, path: Path, entry: Entry) -> None:
        self._keys[path] = entry.mark
        self._remember_node(path, entry.node)

    def _remember_node(self, path: Path, node: Node) -> None:
        self._values[path] = node.mark
        if isinstance(node, Mapping):
            for name, entry in node.entries.items():
                self._remember((*path, name), entry)
        elif isinstance(node, Sequence):
            for number, item in enumerate(node.items):
                self._remember_node((*path, number), item)

    @classmethod
    def from_tree(cls, root: Mapping) -> FlatJob:
        """Read a whole file."""
        flat = cls()
        flat._values[()] = root.mark
        for name, entry in root.entries.items():
            if name in _SOURCES:
                flat._take_source(name, name, entry)
            elif name == "job":
                flat._take_job(entry)
            else:
                flat._take(name, name, entry)
        return flat

    def _take(self, name: str, spelled: str, entry: Entry) -> None:
        present = OLDER.get(name, name)
        if name in NOT_YET:
            self.problems.append(Problem(entry.mark, spelled, _LATER))
            return
        if present not in FIELDS:
            hint = did_you_mean(name, [*FIELDS, *OLDER, *_SOURCES, "job"])
            self.problems.append(Problem(entry.mark, spelled, f"unknown field{hint}"))
            return
        if problem := _later_value(present, spelled, entry.node):
            self.problems.append(problem)
            return
        if present == "sandbox" and isinstance(entry.node, Mapping):
            entry = Entry(entry.mark, self._without_later(entry.node, spelled))
        self.add(present, spelled, entry)

    def _without_later(self, node: Mapping, spelled: str) -> Mapping:
        """Return the sandbox without fields and values of later versions, which are reported."""
        kept: dict[str, Entry] = {}
        for name, entry in node.entries.items():
            inner = f"{spelled}.{name}"
            problem = _later_value(name, inner, entry.node)
            if name in _NOT_YET_INSIDE["sandbox"]:
                problem = Problem(entry.mark, inner, _LATER)
            if problem:
                self.problems.append(problem)
            else:
                kept[name] = entry
        return Mapping(node.mark, kept)

    def _take_source(self, source: str, spelled: str, entry: Entry) -> None:
        """Take a nested source.

        Args:
            source: ``source`` or ``ci_source``.
            spelled: Where it stands in the file.
            entry: The mapping, if it is one.
        """
        if not isinstance(entry.node, Mapping):
            text = f"must be a mapping with {', '.join(SOURCE_PARTS[:4])}"
            self.problems.append(Problem(entry.node.mark, spelled, text))
            return
        for name, inner in entry.node.entries.items():
            full = f"{spelled}.{name}"
            if name in SOURCE_PARTS:
                self.add(f"{source}_{name}", full, inner)
            else:
                hint = did_you_mean(name, SOURCE_PARTS)
                self.problems.append(Problem(inner.mark, full, f"unknown field{hint}"))

    def _take_job(self, entry: Entry) -> None:
        if not isinstance(entry.node, Mapping):
            text = "must be a mapping of fields"
            self.problems.append(Problem(entry.node.mark, "job", text))
            return
        for name, inner in entry.node.entries.items():
            if name in _SOURCES:
                self._take_source(name, f"job.{name}", inner)
            else:
                self._take(name, f"job.{name}", inner)


def _later_value(name: str, spelled: str, node: Node) -> Problem | None:
    if isinstance(node, Scalar) and node.text in _NOT_YET_VALUES.get(name, ()):
        return Problem(node.mark, spelled, f"{node.text} {_LATER}")
    return None
