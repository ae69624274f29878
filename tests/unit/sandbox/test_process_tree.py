"""Whose children a sweep takes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import pytest

from sandbox import procfs
from sandbox.errors import SandboxBrokenError
from sandbox.filesystem.restricted import Spawner
from sandbox.process import ChildProcess, spawn
from sandbox.process_tree import LiveCommand, forget, orphans, reap_zombies, register
from tests.waiting import wait_until


@pytest.fixture
def announced() -> Iterator[Callable[[str], LiveCommand]]:
    """Announce commands as a launcher does; they are withdrawn after the test."""
    with contextlib.ExitStack() as stack:

        def announce(name: str) -> LiveCommand:
            command = register(name)
            stack.callback(forget, command)
            return command

        yield announce


async def dead_child():
    """Start a command as the tiers without namespaces do, and return it when it has ended."""
    null = os.open(os.devnull, os.O_WRONLY)
    spawner = Spawner(changes_user=False)
    try:
        popen = await spawner.spawn(
            lambda: spawn(["/bin/sh", "-c", "exit 7"], env={}, output_fd=null)
        )
    finally:
        os.close(null)
        spawner.close()
    await asyncio.to_thread(os.waitid, os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    # The kernel gives a child to the main thread when the thread that spawned it has ended.
    wait_until(lambda: popen.pid in procfs.adopted_children(), 10)
    return popen


async def test_a_child_that_died_before_it_was_known_is_left_alone(announced):
    """No sweep takes the exit status of a command that is just being started."""
    command = announced("starting-1")
    popen = await dead_child()
    reap_zombies()
    command.leader = popen.pid
    child = ChildProcess(popen, asyncio.get_running_loop())
    async with asyncio.timeout(10):
        await child.wait_exited()
    assert child.reap() == 7


async def test_a_zombie_that_is_older_than_every_start_is_taken(announced):
    """Commands that are being started do not stop the collection of what others left."""
    popen = await dead_child()
    old = next(stat.start_ticks for stat in orphans() if stat.pid == popen.pid)
    announced("starting-2").start_ticks = old + 1
    reap_zombies()
    assert popen.pid not in {stat.pid for stat in orphans()}
    popen.wait()


async def test_a_status_that_is_lost_is_no_success():
    """A child that somebody else has collected is an error of the sandbox, not exit code 0."""
    popen = await dead_child()
    child = ChildProcess(popen, asyncio.get_running_loop())
    os.waitid(os.P_PID, popen.pid, os.WEXITED)
    async with asyncio.timeout(10):
        await child.wait_exited()
    with pytest.raises(SandboxBrokenError, match="lost"):
        child.reap()


async def test_a_child_that_is_gone_cannot_be_taken_over():
    """A child that was collected before it is watched is an error at once, never a wait for ever."""
    popen = await dead_child()
    os.waitid(os.P_PID, popen.pid, os.WEXITED)
    with pytest.raises(SandboxBrokenError, match="watched"):
        ChildProcess(popen, asyncio.get_running_loop())


async def test_a_child_that_cannot_be_watched_is_dead(monkeypatch):
    """Out of descriptors, a new process is not left running unwatched."""

    def exhausted(pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    null = os.open(os.devnull, os.O_WRONLY)
    popen = spawn(["/bin/sleep", "1000"], env={}, output_fd=null)
    os.close(null)
    monkeypatch.setattr(os, "pidfd_open", exhausted)
    with pytest.raises(SandboxBrokenError, match="Too many open files"):
        ChildProcess(popen, asyncio.get_running_loop())
    assert popen.returncode == -9
