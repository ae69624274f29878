"""Keeps tests of whole installations apart where one looks at what all of a host have left.

`runner gc` of root is about every installation of the host, so a test of it would see, and remove, what another test has
killed. Such a test is marked ``alone``; the others share.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LOCK = "RUNNER_TEST_LOCK"
_GATE, _HALL = 0, 1
"""Bytes of the lock file. Whoever waits for the hall holds the gate, so that one who wants it alone is not passed for ever."""


def make_lock(config: pytest.Config) -> None:
    """Make the lock file of a run, unless a process above has; called once per process."""
    if LOCK not in os.environ:
        file = tempfile.NamedTemporaryFile(prefix="runner-tests-")  # noqa: SIM115 - it lasts as long as the run
        config.add_cleanup(file.close)
        os.environ[LOCK] = file.name


@contextmanager
def installation(*, alone: bool) -> Iterator[None]:
    """Hold the right to have installations on this host, from before the set-up of a test until after its end."""
    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with Path(os.environ[LOCK]).open("rb+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, _GATE)
        fcntl.lockf(file, how, 1, _HALL)
        fcntl.lockf(file, fcntl.LOCK_UN, 1, _GATE)
        yield
