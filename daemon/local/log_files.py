"""Reading the logs of the processes, whether they run or not."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from daemon.errors import NotRunningError
from daemon.logs import KEPT_LOGS, rotated
from daemon.paths import StateDir

AGENT_RUNNER = "agent-runner"
_BLOCK_BYTES = 64 << 10
_POLL_S = 0.2


def local_logs(
    state: StateDir, process: str, lines: int, follow: bool
) -> Generator[str, None, None]:
    """Yield the last lines of a process's log, each with its line end, then, with ``follow``, each new one, for ever.

    Goes on in the new file when the log is rotated, and waits for a file that is not there yet.

    Raises:
        NotRunningError: There is no log, and nothing to wait for.
    """
    path = state.log_file(process)
    if not follow:
        found = last_lines(path, lines)
        if not found and not path.exists():
            raise NotRunningError(f"{process} has written no log in {path.parent}")
        yield from (f"{line}\n" for line in found)
        return
    yield from _followed(path, lines)


def logged_processes(state: StateDir) -> list[str]:
    """Return the processes that can have a log: the daemon, the job server, and each agent-runner that ever wrote one."""
    agents = (
        path.stem for path in state.log_file(AGENT_RUNNER).parent.glob(f"{AGENT_RUNNER}*.log")
    )
    return ["daemon", "job-server", *sorted({AGENT_RUNNER, *agents})]


def last_lines(path: Path, count: int, until: BinaryIO | None = None) -> list[str]:
    """Return the last lines of a log and, if it has fewer, of its older parts.

    ``until`` is the open file of ``path``: its position is moved to where the returned lines end,
    and a last line that is still being written is left for later.
    """
    found: list[bytes] = []
    if until is not None:
        found = _file_lines(until, count, unfinished=False)
    for number in range(0 if until is None else 1, KEPT_LOGS + 1):
        if len(found) >= count:
            break
        part = _open(path if number == 0 else rotated(path, number))
        if part is None:
            if number:
                break
            continue
        with part:
            found = _file_lines(part, count - len(found), unfinished=True) + found
    return [line.decode("utf-8", "replace") for line in found]


def _file_lines(file: BinaryIO, count: int, *, unfinished: bool) -> list[bytes]:
    end = position = file.seek(0, os.SEEK_END)
    content = b""
    while position and content.count(b"\n") <= count:
        start = max(0, position - _BLOCK_BYTES)
        file.seek(start)
        content = file.read(position - start) + content
        position = start
    *lines, rest = content.split(b"\n")
    if unfinished and rest:
        lines.append(rest)
    file.seek(end if unfinished else end - len(rest))
    return lines[-count:] if count else []


def _followed(path: Path, count: int) -> Generator[str, None, None]:
    partial = b""
    file = _open(path)
    try:
        yield from (f"{line}\n" for line in last_lines(path, count, until=file))
        while True:
            if file is None:
                file = _open(path)
            while file is not None and (line := file.readline()):
                partial += line
                if partial.endswith(b"\n"):
                    yield partial.decode("utf-8", "replace")
                    partial = b""
            if file is not None and not _is_same(path, file):
                # Rotated. What came between the last read and the rename is read first.
                *complete, partial = (partial + file.read()).split(b"\n")
                file.close()
                file = None
                for line in complete:
                    yield line.decode("utf-8", "replace") + "\n"
                continue
            time.sleep(_POLL_S)
    finally:
        if file is not None:
            file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_same(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return True  # between the two steps of a rotation
