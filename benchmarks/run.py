"""Measures groups, compares with the limits, tells. The command line of both sets of benchmarks."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.goals import NOISY_SHARE, Group, Plan, Reading, Row, UnavailableError
from benchmarks.machine import Machine
from benchmarks.report import HEADER, line, summary

PATIENCE_S = 90.0
QUICK_PATIENCE_S = 15.0

Kinds = Sequence[type[Group]]


def measure(group: Group, rounds: int, machine: Machine) -> list[Row]:
    """Return one row per goal of a group, from the least disturbed rounds."""
    found: list[tuple[float, list[Reading]]] = []
    with ExitStack() as stack:
        group.prepare(stack)
        quiet = 0
        while quiet < rounds and (len(found) < rounds or machine.patience_s > 0):
            machine.wait_quiet()
            with machine.window() as window:
                readings = group.round()
            found.append((window.foreign, readings))
            if window.foreign <= NOISY_SHARE:
                quiet += 1
            elif len(found) > rounds:
                machine.patience_s -= window.seconds
    found.sort(key=lambda pair: pair[0])
    kept = found[:rounds]
    foreign = statistics.median(share for share, _ in kept)
    return [
        Row(goal, _median([readings[position] for _, readings in kept]), foreign)
        for position, goal in enumerate(group.goals)
    ]


def _median(readings: list[Reading]) -> Reading:
    return sorted(readings, key=lambda reading: reading.value)[(len(readings) - 1) // 2]


def measure_or_explain(kind: type[Group], plan: Plan, rounds: int, machine: Machine) -> list[Row]:
    """Measure a group; a problem of one is told in its rows and does not stop the others."""
    try:
        return measure(kind(plan), rounds, machine)
    except UnavailableError as error:
        problem = str(error)
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
    return [Row(goal, None, problem=problem) for goal in kind.goals]


def measure_all(
    kinds: Kinds, names: set[str], rounds: int, machine: Machine, *, quick: bool
) -> list[Row]:
    """Measure what was asked for, printing each row as it comes."""
    root = Path(tempfile.mkdtemp(prefix="runner-bench-"))
    root.chmod(0o711)  # started by root, jobs run as somebody else
    rows = []
    try:
        for kind in kinds:
            if names and not names & {goal.id for goal in kind.goals}:
                continue
            for row in measure_or_explain(kind, Plan(quick, root), rounds, machine):
                if not names or row.goal.id in names:
                    rows.append(row)
                    print(line(row), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return rows


def interrupt(*_: object) -> None:
    """Stop once; what is being stopped then must not be interrupted again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt


def run(kinds: Kinds, prog: str, description: str, *, unavailable_exit: int = 0) -> int:
    """Measure what the command line asks for and return the exit code.

    1 if a limit is missed or could not be measured for a reason that is ours, 130 after Ctrl-C; ``unavailable_exit``
    if only the host kept something from being measured.
    """
    known = sorted({goal.id for kind in kinds for goal in kind.goals}, key=lambda id_: int(id_[1:]))
    asked = _arguments(known, prog, description)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    machine = Machine(QUICK_PATIENCE_S if asked.quick else PATIENCE_S)
    start = time.monotonic()
    print(HEADER, flush=True)
    try:
        rows = measure_all(kinds, asked.names, max(1, asked.rounds), machine, quick=asked.quick)
    except KeyboardInterrupt:
        print("interrupted; everything that was started is stopped", file=sys.stderr)
        return 130
    print(summary(rows, time.monotonic() - start))
    if asked.json:
        asked.json.write_text(json.dumps([row.document() for row in rows], indent=2) + "\n")
    if any(row.missed for row in rows):
        return 1
    return unavailable_exit if any(row.reading is None for row in rows) else 0


def _arguments(known: list[str], prog: str, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds per measurement (default 3)")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and bytes per round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    asked = parser.parse_args()
    asked.names = {name.upper() for name in asked.names}
    if unknown := asked.names - set(known):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return asked
