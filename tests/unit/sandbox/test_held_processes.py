"""Finding a tree from parent to child, and holding it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox import procfs
from sandbox.held_processes import HeldProcesses
from tests.waiting import wait_until

DEADLINE_S = 20.0
THREADED = """
import subprocess, threading, time
threading.Thread(target=lambda: subprocess.run(["sleep", "1000"])).start()
time.sleep(1000)
"""


@pytest.fixture(params=["lists", "no lists"])
def kernel(request, monkeypatch):
    """A kernel that lists the children of a process, and one that does not."""
    if request.param == "no lists":
        monkeypatch.setattr(procfs, "_lists_children", lambda: False)


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A shell above two shells, each in a session of its own, with a sleep below."""
    script = "for _ in 1 2; do setsid sh -c 'sleep 1000 & wait' & done; wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True) as process:
        wait_until(lambda: len(tree(process.pid)) == 5, DEADLINE_S)
        yield process
        kill(process)


def tree(pid: int) -> set[int]:
    """Return a process and its descendants once all of them are what they were started for."""
    processes = procfs.snapshot()
    below = procfs.descendants(processes, {pid})
    return {pid, *(each for each in below if processes[each].command != "setsid")}


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a tree that is a child of this process."""
    with HeldProcesses() as held:
        held.look([process.pid], lambda _: True, signal.SIGSTOP)
        for each in held:
            each.send(signal.SIGKILL)
        wait_until(lambda: not any(each.lives() for each in held), DEADLINE_S)
        process.wait()
        for each in held:  # this process may adopt orphans, by other tests
            each.reap()


@pytest.mark.usefixtures("kernel")
def test_a_tree_is_found_once_parents_first(leader):
    """Every descendant is held after one look, behind its parent; the next one finds nothing new."""
    with HeldProcesses() as held:
        found = [each.stat for each in held.look([leader.pid], lambda _: True)]
        assert {stat.pid for stat in found} == tree(leader.pid)
        order = [os.getpid(), *(stat.pid for stat in found)]
        assert all(order.index(stat.ppid) < order.index(stat.pid) for stat in found)
        assert held.look([leader.pid], lambda _: True) == []


def test_what_is_not_accepted_is_not_held(leader):
    """Neither it nor what descends from it."""
    with HeldProcesses() as held:
        assert held.look([leader.pid], lambda _: False) == []
        assert len(held) == 0


@pytest.mark.usefixtures("kernel")
def test_the_child_of_a_thread_is_found():
    """Each thread has a list of its own."""
    with subprocess.Popen([sys.executable, "-c", THREADED], start_new_session=True) as process:
        wait_until(lambda: len(tree(process.pid)) == 2, DEADLINE_S)
        with HeldProcesses() as held:
            found = held.look([process.pid], lambda _: True)
            assert {each.stat.pid for each in found} == tree(process.pid)
        kill(process)


async def test_without_descriptors_the_start_time_tells_who_is_meant(leader, monkeypatch):
    """A tree that is larger than the descriptors that may be used is signalled nevertheless, and seen to end."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    with HeldProcesses() as held:
        found = held.look([leader.pid], lambda _: True, signal.SIGSTOP)
        assert sorted(each.pidfd >= 0 for each in found) == [False] * 3 + [True] * 2
        for each in held:
            each.send(signal.SIGKILL)
        await held.wait_gone(DEADLINE_S)
        wait_until(lambda: not any(each.lives() for each in found), DEADLINE_S)
        assert len(held.take_ended()) == 5
        for each in found:
            each.reap()
            each.close()


def test_one_that_was_collected_is_forgotten(leader):
    """Its pid may be anybody's then: it is not asked for children, and gets no signal."""
    with HeldProcesses() as held:
        held.look([leader.pid], lambda stat: stat.pid == leader.pid)
        kill(leader)
        assert not next(iter(held)).send(signal.SIGKILL)
        assert held.look([], lambda _: True) == []
        assert leader.pid not in held.pids()
