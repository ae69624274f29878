"""Reads JSON that a job wrote: bounded, and nothing in it that two readers could understand differently."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 16
MAX_DIGITS = 40
_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"


def read_object(content: bytes) -> dict[str, Any]:
    """Return the object that some bytes hold.

    Raises:
        ValueError: They hold none, a name twice, a number that is none, text that is not Unicode, or too many levels; says what, without a value.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("holds bytes that are not UTF-8") from None
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_int,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"is not valid JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if not isinstance(document, dict):
        raise ValueError("must hold an object")  # noqa: TRY004 - the bytes are what is wrong
    _check(document, 1)
    return document


def _check(node: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if isinstance(node, str):
        try:
            node.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair, which is not valid Unicode") from None
        if "\0" in node:
            raise ValueError("holds a NUL character")
    elif isinstance(node, dict):
        for name, value in node.items():
            _check(name, depth)
            _check(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            _check(value, depth + 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"gives {twice[:100]!r} twice")
    return found


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"holds a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("holds a number that is too large")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no number of JSON")
