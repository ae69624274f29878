"""What commands print: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from daemon.config import environ
from daemon.paths import StateDir, find_state_dir


def state_of(ctx: click.Context) -> StateDir:
    """Return the state directory that this invocation is about."""
    return find_state_dir(environ(), ctx.find_root().obj)


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def note(line: str) -> None:
    """Print one line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


def show_warnings() -> None:
    """Make lines for people of what the parts that run jobs warn of; called once before jobs run in this process."""
    import logging  # noqa: PLC0415 - most commands run no job

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            secret = getattr(record, "secret", None)  # its name
            return super().format(record) + (f": {secret}" if secret else "")

    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Lines("runner: warning: %(message)s"))


def printable(text: str) -> str:
    """Return job data with control characters made visible, so that a name cannot drive the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; plain text, so that it can be piped."""
    cells = [list(header), *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def seconds_text(seconds: float | None) -> str:
    """Return a duration as people say it."""
    if seconds is None:
        return "-"
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def dig(document: dict[str, Any], *keys: str) -> Any:
    """Return a nested value, or None where a part is missing."""
    node: Any = document
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node
