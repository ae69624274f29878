"""Runs what waits most of the time at once."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor


def side_by_side(works: Mapping[str, Callable[[], None]], at_once: int = 8) -> dict[str, str]:
    """Run all, some at once; return what each raised, empty if nothing."""

    def run(work: Callable[[], None]) -> str:
        try:
            work()
        except Exception:  # noqa: BLE001 - told by whoever asked
            return traceback.format_exc()
        return ""

    with ThreadPoolExecutor(at_once) as pool:
        return dict(zip(works, pool.map(run, works.values()), strict=True))
