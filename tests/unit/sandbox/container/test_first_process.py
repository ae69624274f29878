"""How the end of a container's first process is learned of the kernel: namespaces of our own, no engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import procfs
from sandbox.container.first_process import FirstProcess
from tests.unit.sandbox.container.test_resident_script import NAMESPACE
from tests.waiting import wait_until


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose only child is the first one of a namespace, and has a child itself."""
    words = ("sh", "-c", "sleep 60 & wait")
    child = subprocess.Popen([*NAMESPACE, *words], stderr=subprocess.PIPE)
    try:
        assert child.stderr is not None
        wait_until(lambda: child.poll() is not None or len(_below(child.pid)) > 1, 20)
        if child.poll() is not None:
            pytest.skip(f"no process namespaces here: {child.stderr.read()!r}")
        yield child
    finally:
        child.kill()
        child.communicate()


def _below(pid: int) -> list[int]:
    found = list(procfs.children_reader()(pid))
    return found + [one for each in found for one in _below(each)]


def _own_groups() -> str:
    """Return what stands for the id of a container: text of the control groups that a child inherits."""
    return Path("/proc/self/cgroup").read_text().strip()


async def test_its_end_is_told_at_once(parent):
    """Whoever collects it; and nobody of its namespace is left then."""
    number, other = _below(parent.pid)
    first = FirstProcess.find(_own_groups(), number)
    assert first is not None
    gone = asyncio.ensure_future(first.gone())
    done, _ = await asyncio.wait({gone}, timeout=0.05)
    assert not done
    os.kill(number, signal.SIGKILL)  # with it dies every other; its parent collects it
    await asyncio.wait_for(gone, 20)
    left = procfs.read_stat(other)
    assert left is None or not left.alive
    await asyncio.wait_for(first.gone(), 20)
    first.close()


def test_only_what_is_certainly_it_is_taken(parent):
    """Not one of another container, not one that is not the first, none that is gone, none where the engine knows of none."""
    number, other = _below(parent.pid)
    before = len(os.listdir("/proc/self/fd"))
    assert FirstProcess.find("0" * 64, number) is None
    assert FirstProcess.find(_own_groups(), other) is None
    assert FirstProcess.find(_own_groups(), os.getpid()) is None
    assert FirstProcess.find(_own_groups(), 0) is None
    os.kill(number, signal.SIGKILL)
    parent.wait()
    assert FirstProcess.find(_own_groups(), number) is None
    assert len(os.listdir("/proc/self/fd")) == before
