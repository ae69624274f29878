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
from sandbox.filesystem import rights
from sandbox.filesystem.call_list import CallList
from sandbox.filesystem.trampoline import Trampoline
from sandbox.process import ChildProcess
from sandbox.process_tree import LiveCommand, forget, reap_zombies, register


@pytest.fixture
def announced() -> Iterator[Callable[[str], LiveCommand]]:
    """Announce commands as a launcher does; they are withdrawn after the test."""
    with contextlib.ExitStack() as stack:

        def announce(name: str) -> LiveCommand:
            command = register(name)
            stack.callback(forget, command)
            return command

        yield announce


def spawned(script: str) -> int:
    """Start a command as the tiers without namespaces do; return its pid."""
    trampoline = Trampoline()
    calls = CallList(trampoline.machine)
    rights.gain_nothing(calls)
    calls.execute(["/bin/sh", "-c", script], {})
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        return trampoline.spawn(calls.finish(), output_fd=null)
    finally:
        os.close(null)
        trampoline.close()


def dead_child() -> int:
    """Start a command and return its pid when it has ended."""
    pid = spawned("exit 7")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


async def test_a_child_that_died_before_it_was_known_is_left_alone(announced):
    """No sweep takes the exit status of a command that is just being started."""
    command = announced("starting-1")
    pid = dead_child()
    reap_zombies()
    command.leader = pid
    child = ChildProcess(pid, asyncio.get_running_loop())
    async with asyncio.timeout(10):
        await child.wait_exited()
    assert child.reap() == 7


async def test_a_zombie_that_is_older_than_every_start_is_taken(announced):
    """Commands that are being started do not stop the collection of what others left."""
    pid = dead_child()
    old = procfs.read_stat(pid)
    assert old is not None
    announced("starting-2").start_ticks = old.start_ticks + 1
    reap_zombies()
    assert procfs.read_stat(pid) is None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


async def test_a_status_that_is_lost_is_no_success():
    """A child that somebody else has collected is an error of the sandbox, not exit code 0."""
    pid = dead_child()
    child = ChildProcess(pid, asyncio.get_running_loop())
    os.waitid(os.P_PID, pid, os.WEXITED)
    async with asyncio.timeout(10):
        await child.wait_exited()
    with pytest.raises(SandboxBrokenError, match="lost"):
        child.reap()


async def test_a_child_that_is_gone_cannot_be_taken_over():
    """A child that was collected before it is watched is an error at once, never a wait for ever."""
    pid = dead_child()
    os.waitid(os.P_PID, pid, os.WEXITED)
    with pytest.raises(SandboxBrokenError, match="watched"):
        ChildProcess(pid, asyncio.get_running_loop())


async def test_a_child_that_cannot_be_watched_is_dead(monkeypatch):
    """Out of descriptors, a new process is not left running unwatched."""

    def exhausted(pid):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    pid = spawned("exec sleep 1000")
    monkeypatch.setattr(os, "pidfd_open", exhausted)
    with pytest.raises(SandboxBrokenError, match="Too many open files"):
        ChildProcess(pid, asyncio.get_running_loop())
    assert procfs.read_stat(pid) is None
