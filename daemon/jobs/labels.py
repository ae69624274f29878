"""Labels as one text per set, so that jobs with equal labels sort together and are matched once.

An agent-runner with k labels can take exactly the 2**k sets that are subsets of its own. Looking each of them up costs
the same however many jobs wait with other labels. Only an agent-runner with very many labels goes the other way
round and tests each set that is in the queue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations

MAX_LABELS_OF_SUBSETS = 6
"""With more labels than these (64 subsets) it is the queue's sets that are tested."""

KNOWN_SETS = 4096
KNOWN_OFFERS = 64

LabelItems = frozenset[tuple[str, str]]


def label_key(labels: Mapping[str, str]) -> str:
    """Return the canonical text of a set of labels: equal sets have equal texts."""
    return json.dumps(dict(labels), sort_keys=True, separators=(",", ":")) if labels else "{}"


def matches(key: str, offered: Mapping[str, str]) -> bool:
    """Tell whether every label of the set is among the offered ones."""
    return _items(key) <= offered.items()


def holds(key: str, wanted: Mapping[str, str]) -> bool:
    """Tell whether every wanted label is in the set."""
    return _items(key) >= wanted.items()


def subset_keys(offered: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the texts of all sets that match an offer; ``None`` if they are too many to look up."""
    if len(offered) > MAX_LABELS_OF_SUBSETS:
        return None
    return _subset_keys(frozenset(offered.items()))


@lru_cache(maxsize=KNOWN_OFFERS)
def _subset_keys(items: LabelItems) -> tuple[str, ...]:
    return tuple(
        label_key(dict(subset))
        for size in range(len(items) + 1)
        for subset in combinations(items, size)
    )


@lru_cache(maxsize=KNOWN_SETS)
def _items(key: str) -> LabelItems:
    # What comes before a line feed is no part of the labels: see ``queue_keys``.
    return frozenset(json.loads(key.rpartition("\n")[2]).items())
