"""Labels as one text per set, so that jobs with equal labels sort together and are matched once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

MAX_KNOWN_SETS = 4096


def label_key(labels: Mapping[str, str]) -> str:
    """Return the canonical text of a set of labels: equal sets have equal texts."""
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":")) if labels else "{}"


def matches(key: str, offered: Mapping[str, str]) -> bool:
    """Tell whether every label of the set is among the offered ones."""
    return _items(key) <= offered.items()


@lru_cache(maxsize=MAX_KNOWN_SETS)
def _items(key: str) -> frozenset[tuple[str, str]]:
    return frozenset(json.loads(key).items())
