"""Who may append to the log of an attempt, beside slow disks. Store, files and completions are the real ones."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.jobs.log_files import LogFiles
from daemon.jobs.memory_store import MemoryJobStore
from daemon.server.completions import Completions
from daemon.server.log_writer import THREAD_BYTES, LogWriter
from daemon.server.signals import Signals
from tests.contract.job_store_backends import running

DEADLINE_S = 5.0
LARGE = b"x" * THREAD_BYTES


class SlowDisk:
    """Holds back the first write until the test lets it go on."""

    def __init__(self) -> None:
        self._pwrite = os.pwrite
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, *args: int) -> int:
        if not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(DEADLINE_S)
        return self._pwrite(*args)  # type: ignore[arg-type]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[LogFiles]:
    logs = LogFiles(tmp_path / "logs")
    yield logs
    logs.close()


@pytest.fixture
def store() -> MemoryJobStore:
    return MemoryJobStore(FixedClock())


@pytest.fixture
def writer(logs: LogFiles) -> LogWriter:
    return LogWriter(logs, Signals(), Completions())


async def test_small_piece_behind_a_large_one_leaves_the_loop(
    store: MemoryJobStore, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    """On the event loop it would wait for the disk, and everybody with it."""
    lease = (await running(store)).lease
    disk = SlowDisk()
    monkeypatch.setattr(os, "pwrite", disk)
    large = asyncio.create_task(writer.append(lease, 0, LARGE))
    assert await asyncio.to_thread(disk.reached.wait, DEADLINE_S)

    small = asyncio.create_task(writer.append(lease, THREAD_BYTES, b"y"))
    await asyncio.sleep(0)
    disk.go_on.set()

    assert (await large, await small) == (THREAD_BYTES, THREAD_BYTES + 1)
