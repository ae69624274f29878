"""Reads YAML 1.2 text into a tree with positions.

Works on the parser's events instead of its finished objects: that gives every position and the
source text of every scalar, and lets nesting, aliases and duplicate names be refused before
anything grows.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError

from daemon.jobfile.problem import START, Mark, Problem
from daemon.jobfile.tree import (
    MAX_DEPTH,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    is_unicode,
    join_surrogates,
    plain_kind,
)

# YAML 1.2, 5.1, the other way round: a range to the end of Unicode takes 9 ms to compile.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

_DIRECTIVE = re.compile(r"\ufeff?(?:[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n))*(%)")
"""The parser reports none that it does not know."""
_NO_DIRECTIVES = "directives (%YAML, %TAG) are not supported"


def read_yaml(text: str) -> Node | None:
    """Return the one document of a text, or None when it is empty.

    Raises:
        Problem: The text is not YAML, or uses what job files do not need.
    """
    found = _UNPRINTABLE.search(text)
    if found:
        code = f"U+{ord(found.group()):04X}"
        raise Problem(Mark.at(text, found.start()), "", f"holds the control character {code}")
    builder = _TreeBuilder()
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except Problem:
        raise
    except MarkedYAMLError as exc:
        raise _syntax_problem(text, exc) from exc
    except Exception as exc:  # the parser lets ValueError and worse escape for odd input
        raise Problem(builder.mark, "", "is not valid YAML near this place") from exc
    if unknown := _DIRECTIVE.match(text):
        raise Problem(Mark.at(text, unknown.start(1)), "", _NO_DIRECTIVES)
    if builder.anchor is not None:
        raise Problem(builder.anchor, "", "anchors (&name) are not supported; leave it out")
    return builder.root


class _TreeBuilder:
    """Collects events into nodes, with a stack of its own instead of recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.mark = START
        self.anchor: Mark | None = None
        """The first; refused when all was read, as an alias that refers to it says more."""
        self._open: list[Sequence | Mapping] = []
        self._keys: list[tuple[str, Mark] | None] = []
        self._documents = 0

    def take(self, event: Any) -> None:
        if event.start_mark is not None:
            self.mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, ev.NodeEvent) and event.anchor and self.anchor is None:
            self.anchor = self.mark
        if isinstance(event, ev.DocumentStartEvent):
            self._start_document(event)
        elif isinstance(event, ev.AliasEvent):
            self._refuse("aliases (*name) are not supported; write the value out")
        elif isinstance(event, ev.ScalarEvent):
            self._add_scalar(event)
        elif isinstance(event, ev.CollectionStartEvent):
            self._start_collection(event)
        elif isinstance(event, ev.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()

    def _start_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse("starts a second document; a job file holds one job")
        # A version directive would bring back the `on` and `no` of YAML 1.1.
        if event.version is not None or event.tags:
            self._refuse(_NO_DIRECTIVES)

    def _start_collection(self, event: Any) -> None:
        self._check_tag(event)
        if self._expects_key():
            self._refuse("names of fields must be text")
        if len(self._open) >= MAX_DEPTH:
            self._refuse(f"is nested more than {MAX_DEPTH} levels deep")
        is_mapping = isinstance(event, ev.MappingStartEvent)
        node = Mapping(self.mark) if is_mapping else Sequence(self.mark)
        self._add(node)
        self._open.append(node)
        self._keys.append(None)

    def _add_scalar(self, event: Any) -> None:
        self._check_tag(event)
        text = join_surrogates(event.value)
        if not is_unicode(text):
            self._refuse("holds half of a surrogate pair, which is not valid Unicode")
        kind = plain_kind(text) if event.implicit[0] else "text"
        if not self._expects_key():
            self._add(Scalar(self.mark, text, kind))
            return
        if kind != "text" or (text == "<<" and event.implicit[0]):
            self._refuse("names of fields must be text; put this one in quotes")
        self._keys[-1] = (text, self.mark)

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            raise RuntimeError("a value came before its name")
        self._keys[-1] = None
        name, mark = key
        if name in parent.entries:
            first = parent.entries[name].mark.line
            raise Problem(mark, self._path(name), f"is given twice (first in line {first})")
        parent.entries[name] = Entry(mark, node)

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1], Mapping) and self._keys[-1] is None

    def _check_tag(self, event: Any) -> None:
        if event.tag is not None:
            self._refuse("tags (!name) are not supported; quote the value instead")

    def _path(self, name: str) -> str:
        """Return the name with those of the fields around it."""
        names = []
        for outer, inner in zip(self._open, self._open[1:], strict=False):
            if isinstance(outer, Mapping):
                names += [key for key, entry in outer.entries.items() if entry.node is inner]
        return ".".join([*names, name])

    def _refuse(self, text: str) -> None:
        raise Problem(self.mark, "", text)


def _syntax_problem(text: str, exc: MarkedYAMLError) -> Problem:
    mark = exc.problem_mark or exc.context_mark
    if mark is None:
        return Problem(START, "", "is not valid YAML")
    place = Mark(mark.line + 1, mark.column + 1)
    if text[mark.index : mark.index + 1] == "\t":
        return Problem(place, "", "is not valid YAML: a tab cannot indent; use spaces")
    reason = " ".join(part for part in (exc.context, exc.problem) if part)
    return Problem(place, "", f"is not valid YAML: {reason}")
