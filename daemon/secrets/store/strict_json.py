"""JSON in which every member stands once: of two with one name, readers differ in which they take."""

from __future__ import annotations

import json
from typing import Any


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the object that a document is.

    Raises:
        ValueError: It is no JSON object, or a member stands twice. The text repeats nothing of the document.
    """
    try:
        document = json.loads(data, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object with each member once")  # noqa: TRY004 - of the content
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members
