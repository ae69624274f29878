"""What is known of the end of a namespace."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess

from sandbox.filesystem.bubblewrap_status import BubblewrapStatus
from sandbox.filesystem.namespace_tree import NamespaceTree
from sandbox.process import ChildProcess
from sandbox.process_tree import register


async def _ended_monitor(init: int) -> NamespaceTree:
    """Return the tree of a monitor that has reported its init and ended."""
    loop = asyncio.get_running_loop()
    monitor = subprocess.Popen(["true"])
    child = ChildProcess(monitor.pid, loop)
    await child.wait_exited()
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b'{ "child-pid": %d, "pid-namespace": 4026532207 }\n' % init)
    os.close(write_fd)
    monitor.wait()
    status = BubblewrapStatus(read_fd, loop)
    status.drain()  # and so closed
    return NamespaceTree(child, status, register("box-00001"), loop)


async def test_an_init_that_lives_on_is_killed():
    """And collected: it is ours once its monitor is dead."""
    init = subprocess.Popen(["sleep", "60"])
    tree = await _ended_monitor(init.pid)
    try:
        assert await tree.kill() == ()
        assert tree.verified_dead()
        assert not os.path.lexists(f"/proc/{init.pid}")
    finally:
        tree.close()
        init.kill()
        init.wait()


async def test_somebody_elses_process_is_left_alone():
    """Whoever has the pid of an init that is gone is no child of ours."""
    tree = await _ended_monitor(1)
    try:
        await tree.kill()
        assert not tree.verified_dead()
        assert os.path.lexists("/proc/1")
    finally:
        tree.close()


async def test_without_a_descriptor_nothing_is_called_dead():
    """Nobody has seen the end of an init that could not be looked at."""
    init = subprocess.Popen(["sleep", "60"])
    tree = await _ended_monitor(init.pid)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            await tree.kill()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert init.poll() is None
        assert not tree.verified_dead()
    finally:
        tree.close()
        init.kill()
        init.wait()
