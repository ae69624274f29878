"""How long a supervisor takes to replace a child: seen from outside, the same way for every supervisor."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

BOUND_S = 30.0
_LOOK_S = 0.0003


def replacement_s(supervisor: int, child: int) -> tuple[float, int]:
    """Kill a child and return the seconds until another one has been executed, and its pid.

    Between fork and exec a process has the command line of its parent, so a new child counts from when it has
    another one.

    Raises:
        RuntimeError: There was none within half a minute.
    """
    before, own_line = _children(supervisor), _command_line(supervisor)
    start = time.monotonic()
    os.kill(child, signal.SIGKILL)
    while time.monotonic() < start + BOUND_S:
        for pid in _children(supervisor) - before:
            if _command_line(pid) not in (b"", own_line):
                return time.monotonic() - start, pid
        time.sleep(_LOOK_S)
    raise RuntimeError(f"the child {child} was not replaced")


def _children(pid: int) -> set[int]:
    found = set[int]()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            found |= set(map(int, (thread / "children").read_text().split()))
        except FileNotFoundError:
            continue  # the thread has ended
    return found


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
