"""Several commands as one: in order, in one sandbox, up to the first failure, each with a line in the log above it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


def steps_script(steps: Iterable[tuple[str, str]]) -> str:
    """Return a shell script of named commands; each has a shell of its own, and its exit code is that of the job."""
    lines = []
    for number, (name, command) in enumerate(steps, 1):
        header = shlex.quote(f"==> {name or f'step {number}'}")
        lines.append(f"printf '%s\\n' {header}")
        lines.append(f"/bin/sh -c {shlex.quote(command)} || exit")
    return "\n".join(lines)
