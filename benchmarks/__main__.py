"""``python -m benchmarks [NAMES…] [--rounds N] [--quick] [--json FILE]``: against floors that need no installation."""

from __future__ import annotations

import sys

from benchmarks.access import Access
from benchmarks.bare import AgainstBare
from benchmarks.commands import Commands
from benchmarks.containers import Containers
from benchmarks.crash import Takeover
from benchmarks.first_line import FirstLine
from benchmarks.flood import Flood
from benchmarks.goals import Group
from benchmarks.heap import Heap
from benchmarks.lines import FlushedLines
from benchmarks.log_path import LogMemory, LogThroughput
from benchmarks.long_queue import LongQueue
from benchmarks.masking import MaskedLogs, MaskerSpeed
from benchmarks.one_shot import OneShot
from benchmarks.overhead import Overhead
from benchmarks.resting import Resting
from benchmarks.run import run
from benchmarks.starting import Starting
from benchmarks.throughput import BatchSubmit, SingleSubmits
from benchmarks.walls import AddedLatency, Bubblewrap, Landlock

GROUPS: tuple[type[Group], ...] = (
    SingleSubmits,
    BatchSubmit,
    AgainstBare,
    FirstLine,
    Landlock,
    Bubblewrap,
    AddedLatency,
    Overhead,
    LogThroughput,
    MaskerSpeed,
    MaskedLogs,
    FlushedLines,
    Flood,
    Commands,
    OneShot,
    Starting,
    Resting,
    Takeover,
    Containers,
    Access,
    LongQueue,
    LogMemory,
    Heap,
)

if __name__ == "__main__":
    sys.exit(run(GROUPS, "python -m benchmarks", "Measure, compare with the limits, tell."))
