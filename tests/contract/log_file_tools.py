"""Hosts that are short of files or room, or slow, for the tests of the log files."""

from __future__ import annotations

import gc
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0


def open_files() -> int:
    """Count the open files of this process; what earlier tests have left to the garbage collector is closed before."""
    gc.collect()
    return len([*Path("/proc/self/fd").iterdir()])


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Gate:
    """A system call that stands still until the test lets it go on, as on a slow disk."""

    def __init__(self, call: Callable[..., Any], stops: Callable[..., bool]) -> None:
        self._call = call
        self._stops = stops
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, *args: Any) -> Any:
        if self._stops(*args):
            self.reached.set()
            assert self.go_on.wait(DEADLINE_S)
        return self._call(*args)
