"""The fields of a job file under their present names, each with its place, and files laid over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from daemon.jobfile.problem import Mark, Problem
from daemon.jobfile.tree import Data, Entry, Mapping, Node, Sequence, to_data

T = TypeVar("T")
Path = tuple[str | int, ...]

ALTERNATIVES = {"job_command": "steps", "steps": "job_command"}
"""A file that is laid over gives one of the two; the other is gone then."""
TEXT_FIELDS = frozenset({"env"})
"""What is in them stays as it is written: ``1.10`` is no number there."""


@dataclass(slots=True)
class FlatJob:
    """What the dialect makes of a file, not checked yet."""

    data: dict[str, Data] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _spelled: dict[Path, str] = field(default_factory=dict)
    _keys: dict[Path, Mark] = field(default_factory=dict)
    _values: dict[Path, Mark] = field(default_factory=dict)

    def begin(self, mark: Mark) -> None:
        """Note where the whole begins, for what is missing."""
        self._values[()] = mark

    def add(self, name: str, spelled: str, entry: Entry) -> None:
        """Take one field; a second spelling of it is a problem."""
        if self._is_first((name,), spelled, entry):
            self.data[name] = to_data(entry.node, source_text=name in TEXT_FIELDS)
            self._remember((name,), entry)

    def add_inner(self, outer: str, name: str, spelled: str, entry: Entry) -> None:
        """Take what older files say elsewhere for something inside a field."""
        inside = self.data.setdefault(outer, {})
        if isinstance(inside, dict) and self._is_first((outer, name), spelled, entry):
            inside[name] = to_data(entry.node)
            self._remember((outer, name), entry)

    def has(self, name: str) -> bool:
        """Return whether the file gives a field, in whatever spelling."""
        return (name,) in self._keys

    def problem(self, path: Path, text: str, *, at_key: bool = False) -> Problem:
        """Return a problem of a field, at the nearest place that the file has for it.

        Args:
            path: Present names of the field and of what is inside it.
            text: What is wrong.
            at_key: Point at the name, not at the value.
        """
        marks = self._keys if at_key else self._values
        known = next((path[:size] for size in range(len(path), 0, -1) if path[:size] in marks), ())
        return Problem(marks[known] if known else self._values[()], self._shown(path), text)

    def lay_over(self, other: FlatJob, file: str, allowed: Callable[[Path, Data], bool]) -> None:
        """Let another file's fields replace those of this one; mappings are merged, name by name.

        Args:
            other: Read from ``file``; not used any more.
            file: Its name, for places.
            allowed: Told of each value that is to be replaced, with the new one; False makes it a problem.
        """
        for marks in (other._keys, other._values):
            marks.update({path: mark._replace(file=file) for path, mark in marks.items()})
        for problem in other.problems:
            problem.mark = problem.mark._replace(file=file)
        self.problems += other.problems
        for name, value in other.data.items():
            if name in ALTERNATIVES:
                self._forget((ALTERNATIVES[name],))
                self.data.pop(ALTERNATIVES[name], None)
            self.data[name] = self._merged((name,), self.data.get(name), value, other, allowed)

    def _merged(
        self,
        path: Path,
        mine: Data,
        value: Data,
        other: FlatJob,
        allowed: Callable[[Path, Data], bool],
    ) -> Data:
        if isinstance(mine, dict) and isinstance(value, dict):
            for name, inner in value.items():
                below = (*path, name)
                mine[name] = self._merged(below, mine.get(name), inner, other, allowed)
            return mine
        if not allowed(path, value):
            text = "replaces a secret reference by plain text; --allow-secret-overrides allows it"
            self.problems.append(other.problem(path, text))
        self._forget(path)
        _take_below(self._keys, other._keys, path)
        _take_below(self._values, other._values, path)
        _take_below(self._spelled, other._spelled, path)
        return value

    def _forget(self, path: Path) -> None:
        for known in (self._keys, self._values, self._spelled):
            for at in [at for at in known if at[: len(path)] == path]:
                del known[at]

    def _is_first(self, path: Path, spelled: str, entry: Entry) -> bool:
        if path not in self._keys:
            self._spelled[path] = spelled
            return True
        first = f"{self._shown(path)} (line {self._keys[path].line})"
        text = f"means the same as {first}; keep one of them"
        self.problems.append(Problem(entry.mark, spelled, text))
        return False

    def _shown(self, path: Path) -> str:
        """Return the name of a field as the file spells it."""
        for size in range(len(path), 0, -1):
            if path[:size] in self._spelled:
                return ".".join([self._spelled[path[:size]], *map(str, path[size:])])
        return ".".join(map(str, path))

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


def _take_below(mine: dict[Path, T], others: dict[Path, T], path: Path) -> None:
    mine.update({at: fact for at, fact in others.items() if at[: len(path)] == path})
