"""What a job file says, with the place of every key and value; the same for YAML and JSON.

Scalars keep their source text, because an environment variable written as ``1.10`` must not
become ``1.1``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from daemon.jobfile.problem import Mark

MAX_DEPTH = 16
"""No job file needs more; it keeps walks over the tree from running out of stack."""

ScalarKind = Literal["text", "int", "float", "bool", "null"]

# The core schema of YAML 1.2 (10.3.2): `on`, `yes`, `010` and `12:30` are what they look like.
_PLAIN: tuple[tuple[ScalarKind, re.Pattern[str]], ...] = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    ("float", re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")),
    ("float", re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")),
)
_MAX_DIGITS = 40
"""More digits fit no field; int() itself refuses thousands of them."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: its source text, or the content of its quotes."""

    mark: Mark
    text: str
    kind: ScalarKind

    def value(self) -> str | int | float | bool | None:
        """Return the value that the text stands for."""
        if self.kind == "text":
            return self.text
        if self.kind == "null":
            return None
        if self.kind == "bool":
            return self.text.lower() == "true"
        if self.kind == "int" and len(self.text) <= _MAX_DIGITS:
            return int(self.text, {"0o": 8, "0x": 16}.get(self.text[:2], 10))
        if self.text.startswith("0x"):
            return float("inf")
        return float(self.text.lower().replace(".inf", "inf").replace(".nan", "nan"))


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of values."""

    mark: Mark
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Named values in the order of the file; names are distinct."""

    mark: Mark
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a mapping with its value."""

    mark: Mark
    node: Node


Node = Scalar | Sequence | Mapping
Data = str | int | float | bool | list["Data"] | dict[str, "Data"] | None


def plain_kind(text: str) -> ScalarKind:
    """Return what an unquoted scalar is."""
    for kind, pattern in _PLAIN:
        if pattern.fullmatch(text):
            return kind
    return "text"


def to_data(node: Node, *, source_text: bool = False) -> Data:
    """Return a node as plain data.

    Args:
        node: What to convert.
        source_text: Numbers and booleans come as they are written.
    """
    if isinstance(node, Mapping):
        return {
            key: to_data(entry.node, source_text=source_text) for key, entry in node.entries.items()
        }
    if isinstance(node, Sequence):
        return [to_data(item, source_text=source_text) for item in node.items]
    return node.text if source_text and node.kind != "null" else node.value()


def is_unicode(text: str) -> bool:
    """Return False for half a surrogate pair, which escapes can smuggle in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def join_surrogates(text: str) -> str:
    """Return a text in which pairs of escapes, as JSON writes them, are one character each."""
    if is_unicode(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
