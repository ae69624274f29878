"""Reads JSON text into a tree with positions.

The standard library's decoder reads the scalars; objects and lists are walked here, because it
keeps no positions and silently takes the last of two equal names.
"""

from __future__ import annotations

import bisect
import json
import re
from typing import NoReturn

from daemon.jobfile.problem import Mark, Problem
from daemon.jobfile.tree import (
    MAX_DEPTH,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    is_unicode,
    plain_kind,
)

_NO_SPACE = re.compile(r"[^ \t\n\r]")


def read_json(text: str) -> Node | None:
    """Return the value of a JSON text, or None when it is empty.

    Raises:
        Problem: The text is not JSON, or gives one name twice.
    """
    reader = _JsonReader(text)
    try:
        return reader.read()
    except json.JSONDecodeError as exc:
        raise Problem(Mark(exc.lineno, exc.colno), "", f"is not valid JSON: {exc.msg}") from exc


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        # Numbers stay text: theirs is the source text, and int() refuses thousands of digits.
        self._decoder = json.JSONDecoder(
            parse_int=str, parse_float=str, parse_constant=_refuse_constant
        )

    def read(self) -> Node | None:
        if not self._peek():
            return None
        node = self._value([])
        if self._peek():
            raise self._error("something follows the end of the job")
        return node

    def _value(self, path: list[str]) -> Node:
        char = self._peek()
        if len(path) > MAX_DEPTH:
            raise Problem(self._mark(), "", f"is nested more than {MAX_DEPTH} levels deep")
        if char == "{":
            return self._object(path)
        if char == "[":
            return self._array(path)
        return self._scalar()

    def _object(self, path: list[str]) -> Mapping:
        node = Mapping(self._mark())
        self._position += 1
        if self._take("}"):
            return node
        while True:
            if self._peek() != '"':
                raise self._error("expecting a field name in double quotes")
            mark = self._mark()
            name = self._scalar().text
            if name in node.entries:
                first = node.entries[name].mark.line
                problem = f"is given twice (first in line {first})"
                raise Problem(mark, ".".join([*path, name]), problem)
            if not self._take(":"):
                raise self._error("expecting ':'")
            node.entries[name] = Entry(mark, self._value([*path, name]))
            if self._take("}"):
                return node
            if not self._take(","):
                raise self._error("expecting ',' or '}'")

    def _array(self, path: list[str]) -> Sequence:
        node = Sequence(self._mark())
        self._position += 1
        if self._take("]"):
            return node
        while True:
            node.items.append(self._value([*path, str(len(node.items))]))
            if self._take("]"):
                return node
            if not self._take(","):
                raise self._error("expecting ',' or ']'")

    def _scalar(self) -> Scalar:
        start, mark = self._position, self._mark()
        try:
            value, self._position = self._decoder.raw_decode(self._text, start)
        except json.JSONDecodeError:
            raise
        except ValueError:
            raise self._error("NaN and Infinity are not numbers of JSON") from None
        if self._text[start] != '"':
            text = self._text[start : self._position]
            return Scalar(mark, text, plain_kind(text))
        if not is_unicode(value):
            raise Problem(mark, "", "holds half of a surrogate pair, which is not valid Unicode")
        return Scalar(mark, value, "text")

    def _peek(self) -> str:
        found = _NO_SPACE.search(self._text, self._position)
        self._position = found.start() if found else len(self._text)
        return found.group() if found else ""

    def _take(self, char: str) -> bool:
        if self._peek() != char:
            return False
        self._position += 1
        return True

    def _mark(self) -> Mark:
        line = bisect.bisect_right(self._lines, self._position)
        return Mark(line, self._position - self._lines[line - 1] + 1)

    def _error(self, text: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(text, self._text, self._position)
