"""Who else uses the machine: how much of it others take, and a bounded wait until they take little.

Every process that the benchmarks start stays below this one (it is their subreaper), so whatever CPU time is not
theirs is somebody else's. Work that the kernel does in threads of its own counts as somebody else's too.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.goals import NOISY_SHARE

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.3
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_ONE_WAIT_S = 10.0


@dataclass(slots=True)
class Window:
    """A span of time that was watched."""

    foreign: float = 0.0
    """Share of the machine that others took in it."""
    seconds: float = 0.0


@dataclass(slots=True)
class Machine:
    """One per run."""

    patience_s: float
    """How long all waits and repeated rounds of a run may take together."""
    _before: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), init=False)

    def __post_init__(self) -> None:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Watch for as long as the block lasts; the result is there after it."""
        window = Window()
        total, busy, own = _times()
        start = time.monotonic()
        try:
            yield window
        finally:
            new_total, new_busy, new_own = _times()
            foreign = (new_busy - busy) - (new_own - own)
            window.foreign = max(0.0, foreign / max(1.0, new_total - total))
            window.seconds = time.monotonic() - start

    def wait_quiet(self) -> None:
        """Wait until others take little, as long as patience lasts."""
        deadline = time.monotonic() + min(_ONE_WAIT_S, self.patience_s)
        start = time.monotonic()
        while True:
            with self.window() as window:
                time.sleep(_LOOK_S)
            if window.foreign <= NOISY_SHARE or time.monotonic() >= deadline:
                break
        self.patience_s -= max(0.0, time.monotonic() - start - _LOOK_S)


def cpu_ticks(pid: int) -> float:
    """Return the CPU time of one process, in clock ticks, with that of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return float(sum(int(ticks) for ticks in fields[11:15]))


def own_cpu_ms() -> float:
    """Return the CPU time of this process and of all that it started; only differences mean anything."""
    return sum(map(_ticks_or_none, _family())) * _TICK_MS


def _times() -> tuple[float, float, float]:
    """Return total, busy and our own CPU time of the machine in ticks."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    total = sum(fields)
    return total, total - fields[3] - fields[4], sum(map(_ticks_or_none, _family()))


def _ticks_or_none(pid: int) -> float:
    try:
        return cpu_ticks(pid)
    except OSError:
        return 0.0


def _family() -> set[int]:
    children: defaultdict[int, set[int]] = defaultdict(set)
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        children[int(stat.rpartition(")")[2].split()[1])].add(int(name))
    found, new = set[int](), {os.getpid()}
    while new:
        found |= new
        new = set().union(*(children[pid] for pid in new)) - found
    return found
