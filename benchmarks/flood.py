"""P16: how long a short job takes while another one floods its log, against an idle system."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.bare import own_seconds
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Reading
from benchmarks.installation import Installation
from benchmarks.log_path import MB, secret_values, take_log_bytes, write_lines
from benchmarks.throughput import PLAIN

GAP_S = 0.1
MAX_MB = 1900
"""A log ends at 2 GiB."""
_FLOWING_S = 0.5


class Flood(Group):
    """The flood has ten secrets to look for, and two slots serve both."""

    goals = (
        Goal("P16", "submit to end p50 beside a flood, vs idle p50", 5, 2.5),
        Goal("P16", "submit to end, the longest, the same", 40, 40),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start an installation with secrets, and a client for each job."""
        self._lines = self.plan.root / "p16-lines"
        self._stop = self.plan.root / "p16-stop"
        write_lines(self._lines, 1)
        values, self._env = secret_values()
        self._client = stack.enter_context(ClientProcess())
        self._flooding = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN, secrets=values))
        self._seconds()

    def round(self) -> list[Reading]:
        """Idle, then beside the flood."""
        idle = statistics.median(self._seconds())
        with self._flood() as speed:
            beside = self._seconds()
        half, longest = statistics.median(beside), max(beside)
        of = f"of {idle * 1000:.1f} ms"
        return [
            Reading(half / idle, f"{half * 1000:.1f} ms {of}, beside {speed[0]:.0f} MB/s"),
            Reading(longest / idle, f"{longest * 1000:.0f} ms {of}"),
        ]

    @contextmanager
    def _flood(self) -> Iterator[list[float]]:
        """Let a job print until the block ends; its MB per second are there after it.

        Raises:
            RuntimeError: It had ended before.
        """
        self._flooding.begin(
            "output",
            target=self._installation.target,
            argv=["/bin/sh", "-c", until_command(self._lines, self._stop)],
            env=self._env,
            follow=False,
        )
        speed: list[float] = []
        try:
            time.sleep(_FLOWING_S)
            yield speed
        finally:
            self._stop.touch()
            done = self._flooding.result()
            self._stop.unlink()
        size = take_log_bytes(self._installation, done["job_id"])
        if size >= MAX_MB * MB:
            raise RuntimeError("the flood had ended before the jobs beside it")
        speed.append(size / MB / done["seconds"])

    def _seconds(self) -> list[float]:
        return own_seconds(self._client, self._installation, self.plan.amount(30, 12), GAP_S)


def until_command(path: Path, stop: Path) -> str:
    """Return a shell command that prints a file of 1 MB until another file appears, in pieces of 4 KiB."""
    return (
        f"n=0; while [ ! -e {stop} ] && [ $n -lt {MAX_MB} ]; do"
        f" dd if={path} bs=4k status=none; n=$((n+1)); done"
    )
