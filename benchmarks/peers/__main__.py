"""``python -m benchmarks.peers [NAMES…] [--rounds N] [--quick] [--json FILE]``: against other tools, which ``install.sh`` brings."""

from __future__ import annotations

import sys

from benchmarks.goals import Group
from benchmarks.peers.queue_peers import (
    AgainstCelery,
    AgainstHuey,
    AgainstProcrastinate,
    Latency,
)
from benchmarks.peers.supervisors import AgainstPm2, Restart, Start
from benchmarks.run import run

GROUPS: tuple[type[Group], ...] = (
    AgainstHuey,
    AgainstCelery,
    AgainstProcrastinate,
    Latency,
    Start,
    AgainstPm2,
    Restart,
)
UNAVAILABLE_EXIT = 3

if __name__ == "__main__":
    told = (
        "Measure beside other tools and compare with the limits; exit 3 if one of them is missing."
    )
    sys.exit(run(GROUPS, "python -m benchmarks.peers", told, unavailable_exit=UNAVAILABLE_EXIT))
