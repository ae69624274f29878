"""The rows as text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.goals import Row

_FORMAT = "{:4} {:60} {:>10} {:>11} {:>11} {:11} {}"
HEADER = _FORMAT.format("id", "what", "measured", "must", "aim", "verdict", "note")


def line(row: Row) -> str:
    """Return a row of the table."""
    goal = row.goal
    measured = goal.text(row.reading.value) if row.reading else "-"
    cells = (goal.id, goal.what, measured, goal.bound(goal.must), goal.bound(goal.aim))
    return _FORMAT.format(*cells, row.verdict, row.note)


def summary(rows: Sequence[Row], seconds: float) -> str:
    """Return the last line: what was missed."""
    missed = [f"{row.goal.id} ({row.goal.what})" for row in rows if row.missed]
    verdict = f"missed: {'; '.join(missed)}" if missed else "no limit was missed"
    return f"{len(rows)} measurements in {seconds:.0f} s; {verdict}"
