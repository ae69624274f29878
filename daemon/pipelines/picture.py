"""Draws the jobs of a pipeline with their states and times: as text, as Mermaid, as SVG. Pure functions of rows.

A row is a job in the words of ``runner jobs show``; before a run it has a name and dependencies only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape

Row = Mapping[str, Any]

MARKS = {
    "SUCCEEDED": "✔",
    "FAILED": "✘",
    "CANCELLED": "⊘",
    "RUNNING": "▶",
    "CANCELLING": "▶",
    "PENDING": "…",
    "BLOCKED": "…",
}
COLOURS = {
    "SUCCEEDED": "#2da44e",
    "FAILED": "#cf222e",
    "CANCELLED": "#6e7781",
    "RUNNING": "#bf8700",
}
PLAIN_COLOUR = "#57606a"
_BOX_WIDTH = 190
_BOX_HEIGHT = 46
_GAP_X = 60
_GAP_Y = 18
_MARGIN = 16
_LABEL_CHARS = 24


def picture(rows: Sequence[Row], form: str) -> str:
    """Return a picture; ``form`` is ``text``, ``mermaid`` or ``svg``."""
    drawn: Callable[[Sequence[Row]], str] = {"text": text, "mermaid": mermaid, "svg": svg}[form]
    return drawn(rows)


def text(rows: Sequence[Row]) -> str:
    """Return a line for each job, below each other in the order in which they can run."""
    names = _names(rows)
    levels = _levels(rows)
    width = max((2 * levels[row["id"]] + len(_label(row)) for row in rows), default=0)
    lines = []
    for row in sorted(rows, key=lambda row: levels[row["id"]]):
        name = "  " * levels[row["id"]] + _label(row)
        waits = ", ".join(names[one] for one in row["depends_on"] if one in names)
        condition = (
            "" if row.get("condition", "all_success") == "all_success" else f" ({row['condition']})"
        )
        after = f"after {waits}{condition}" if waits else ""
        facts = [
            MARKS.get(row.get("state", ""), "○"),
            f"{name:{width}}",
            f"{status(row):24}",
            after,
        ]
        lines.append("  ".join(facts).rstrip())
    return "\n".join(lines)


def mermaid(rows: Sequence[Row]) -> str:
    """Return a flow chart, as Markdown viewers draw it."""
    numbers = {row["id"]: f"j{number}" for number, row in enumerate(rows)}
    lines = ["flowchart LR"]
    for row in rows:
        label = escape(f"{_label(row)}\n{status(row)}".strip(), {'"': "&quot;"}).replace(
            "\n", "<br/>"
        )
        lines.append(f'  {numbers[row["id"]]}["{label}"]')
    for row in rows:
        arrow = {"any_failed": "-. failed .->", "always": "-. always .->"}.get(
            row.get("condition", ""), "-->"
        )
        lines += [
            f"  {numbers[other]} {arrow} {numbers[row['id']]}"
            for other in row["depends_on"]
            if other in numbers
        ]
    lines += [
        f"  style {numbers[row['id']]} stroke:{COLOURS[row['state']]},stroke-width:2px"
        for row in rows
        if row.get("state") in COLOURS
    ]
    return "\n".join(lines)


def svg(rows: Sequence[Row]) -> str:
    """Return a picture that needs nothing else: a column for each step, an arrow for each dependency."""
    levels = _levels(rows)
    columns: dict[int, list[Row]] = {}
    for row in rows:
        columns.setdefault(levels[row["id"]], []).append(row)
    places = {
        row["id"]: (
            _MARGIN + level * (_BOX_WIDTH + _GAP_X),
            _MARGIN + number * (_BOX_HEIGHT + _GAP_Y),
        )
        for level, column in columns.items()
        for number, row in enumerate(column)
    }
    width = max((x for x, _ in places.values()), default=0) + _BOX_WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _BOX_HEIGHT + _MARGIN
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{PLAIN_COLOUR}"/></marker></defs>'
        ),
    ]
    for row in rows:
        parts += [
            _line(places[other], places[row["id"]], str(row.get("condition", "")))
            for other in row["depends_on"]
            if other in places
        ]
    parts += [_box(row, *places[row["id"]]) for row in rows]
    return "\n".join([*parts, "</svg>"])


def status(row: Row) -> str:
    """Return what is known of a job in a few words: its state, why it ended, and how long it took."""
    state = row.get("state")
    if not state:
        return ""
    words = [str(state).lower()]
    if row.get("end_reason") == "EXITED" and row.get("exit_code"):
        words.append(f"(exit {row['exit_code']})")
    elif row.get("end_reason") not in (None, "EXITED", "CANCELLED"):
        words = [str(row["end_reason"]).lower().replace("_", " ")]
    seconds = duration_s(row)
    if seconds is not None:
        words.append(f"{seconds:.1f}s")
    return " ".join(words)


def duration_s(row: Row) -> float | None:
    """Return how long a job ran; None if it has not ended, or never began."""
    start, end = row.get("start_time"), row.get("end_time")
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _label(row: Row) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(row["name"]))


def _names(rows: Sequence[Row]) -> dict[str, str]:
    return {row["id"]: _label(row) for row in rows}


def _levels(rows: Sequence[Row]) -> dict[str, int]:
    """Return how many jobs are in a row before each one; rows come after those that they depend on."""
    levels: dict[str, int] = {}
    for row in rows:
        levels[row["id"]] = 1 + max((levels.get(one, -1) for one in row["depends_on"]), default=-1)
    return levels


def _box(row: Row, x: int, y: int) -> str:
    colour = COLOURS.get(row.get("state", ""), PLAIN_COLOUR)
    name = _label(row)
    short = name if len(name) <= _LABEL_CHARS else f"{name[: _LABEL_CHARS - 1]}…"
    return (
        f"<g><title>{escape(name)}</title>"
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" fill="#fff" '
        f'stroke="{colour}" stroke-width="2"/>'
        f'<text x="{x + 10}" y="{y + 19}">{escape(short)}</text>'
        f'<text x="{x + 10}" y="{y + 37}" fill="{colour}" font-size="11">{escape(status(row))}</text></g>'
    )


def _line(start: tuple[int, int], end: tuple[int, int], condition: str) -> str:
    x1, y1 = start[0] + _BOX_WIDTH, start[1] + _BOX_HEIGHT // 2
    x2, y2 = end[0], end[1] + _BOX_HEIGHT // 2
    middle = (x1 + x2) // 2
    dashes = "" if condition in ("", "all_success") else ' stroke-dasharray="4 3"'
    return (
        f'<path d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" '
        f'stroke="{PLAIN_COLOUR}"{dashes} marker-end="url(#tip)"/>'
    )
