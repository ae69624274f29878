"""One process of a peer: started, waited for, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.peers.place import PATH, PROJECT

READY_BOUND_S = 30.0
_STOP_BOUND_S = 10.0
_LOOK_S = 0.002


@contextmanager
def service(
    argv: Sequence[str],
    log: Path,
    ready: Callable[[], bool] = lambda: True,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for as long as the block lasts; it is the first of a session of its own.

    Args:
        argv: The command.
        log: Takes its output.
        ready: Tells whether it works; asked every two milliseconds.
        env: Added to PATH and HOME.
        user: Who it runs as; None keeps this user.

    Raises:
        RuntimeError: It has ended, or was not ready within half a minute.
    """
    environment = {"PATH": PATH, "HOME": str(log.parent), "LANG": "C.UTF-8", **(env or {})}
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd=PROJECT if user is None else "/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=user,
        )
    try:
        deadline = time.monotonic() + READY_BOUND_S
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} does not start: {log.read_text()[-300:]}")
            time.sleep(_LOOK_S)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_BOUND_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
