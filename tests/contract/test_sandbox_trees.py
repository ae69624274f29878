"""The tree of a command: nothing of it outlives the command, and nothing of another is touched."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from sandbox import process_tree, procfs
from sandbox.base import Tier
from sandbox.errors import SandboxBrokenError
from sandbox.filesystem.provider import FilesystemProvider
from tests.contract.deviations import BWRAP, LANDLOCK, PLAIN
from tests.contract.sandbox_backends import (
    DEADLINE_S,
    FILESYSTEM_BACKENDS,
    PROCESS_BACKENDS,
    WARM,
    a_sleep,
    finish,
    open_place,
    read_until,
    running,
    until,
    until_warm,
)

SLOTS = 8
SHORT_COMMANDS = 150


@pytest.fixture(params=(*FILESYSTEM_BACKENDS, WARM))
async def real(request, reachable_dir):
    """Every backend whose processes and folders are this host's own."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=(*PROCESS_BACKENDS, WARM))
async def every(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


async def test_timeout_kills_grandchildren(every):
    """The bound ends the whole tree, also what ignores TERM in the background."""
    sleep = a_sleep()
    script = f"sh -c \"trap '' TERM; sleep {sleep} & wait; sleep {sleep}\" & sleep {sleep}"
    _, result = await every.run(script, timeout_s=0.5, grace_s=0.3)
    assert result.timed_out
    assert running(sleep) == []


async def test_parents_are_told_to_end_before_their_children(every):
    """So no shell says of its child that it was terminated."""
    script = "printf up; sleep 1000"
    for _ in range(6):
        script = f"sh -c {shlex.quote(script)}; :"
    command = await every.start(script)
    stream = command.stream()
    await read_until(stream, b"up")
    await command.stop(DEADLINE_S)
    assert b"".join([piece async for piece in stream]) == b""
    assert (await command.wait()).signal == signal.SIGTERM


async def test_daemon_dies_with_the_command(every):
    """What a command leaves behind, double-forked in its own session, is dead when wait returns."""
    sleep = a_sleep()
    script = f"(setsid sh -c 'sleep {sleep} & sleep {sleep}' >/dev/null 2>&1 &); sleep 0.1"
    _, result = await every.run(script)
    assert (result.exit_code, result.survivors) == (0, ())
    assert running(sleep) == []


async def test_daemon_without_marker_dies_too(every):
    """A daemon with an empty environment, whose parents are dead, is found nevertheless."""
    sleep = a_sleep()
    script = f"(env -i setsid sh -c 'env -i setsid sleep {sleep} & :' >/dev/null 2>&1 &); sleep 0.1"
    await every.run(script)
    assert running(sleep) == []


async def test_daemon_that_holds_the_pipe_does_not_hang_the_stream(every):
    """The output ends with the command, even if a leftover could still write to it."""
    sleep, start = a_sleep(), time.monotonic()
    output, result = await every.run(f"(setsid sleep {sleep} &); echo done")
    assert (output, result.exit_code) == (b"done\n", 0)
    assert time.monotonic() - start < 10
    assert running(sleep) == []


async def test_stop_lets_children_clean_up(every):
    """TERM reaches the whole tree, and a child that outlives the leader still has its grace."""
    child = "trap 'sleep 0.3; echo cleaned; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    command = await every.start(f'sh -c "{child}" & wait; exit 3')
    stream = command.stream()
    await read_until(stream, b"up")
    await command.stop(20)
    rest = b"".join([piece async for piece in stream])
    assert rest.endswith(b"cleaned\n")
    assert (await command.wait()).signal == signal.SIGTERM


async def test_fork_chain_is_killed(every):
    """A process that keeps forking and exiting cannot outrun the kill."""
    script = "f() { sleep 0.01; f & }; f; echo up; sleep 1000"
    command = await every.start(script)
    await read_until(command.stream(), b"up")
    async with asyncio.timeout(20):
        await command.kill()
    assert (await command.wait()).survivors == ()


async def test_other_sandboxes_survive_a_kill(every):
    """Killing one tree leaves a running command of another sandbox, and its daemon, alone."""
    other = await every.another()
    kept, short = a_sleep(), a_sleep()
    script = f"(setsid sleep {kept} &); (env -i setsid sleep {kept} &); echo up; sleep {kept}"
    bystander = await every.start(script, sandbox=other)
    await read_until(bystander.stream(), b"up")
    # Exact lines: a shell that has not executed its command yet shows the whole script.
    await until(lambda: running(kept).count(f"sleep {kept}") == 3)
    for _ in range(3):
        await every.run(f"(setsid sleep {short} &); true")
    assert running(kept).count(f"sleep {kept}") == 3
    await bystander.kill()
    assert running(kept) == []


async def test_daemon_without_marker_dies_beside_an_older_command(real):
    """Where each sandbox has namespaces or a user of its own it does not matter whose else it could be."""
    if os.geteuid() != 0 and real.backend in {LANDLOCK, PLAIN}:
        pytest.skip("an ordinary user's sandboxes share the user, and tree_kill is not held")
    older, sleep = a_sleep(), a_sleep()
    bystander = await real.start(f"sleep {older}", sandbox=await real.another())
    script = f"(env -i setsid sh -c 'env -i setsid sleep {sleep} & :' >/dev/null 2>&1 &); sleep 0.1"
    _, result = await real.run(script)
    assert (result.survivors, running(f"sleep {sleep}")) == ((), [])
    assert running(f"sleep {older}") != []
    await bystander.kill()


async def test_zombies_do_not_pile_up(real):
    """Orphans that end while a command runs leave no zombie of ours behind."""
    # This process also adopts what processes of other tests leave.
    others = procfs.own_children()
    await real.run("for i in 1 2 3 4 5; do (setsid true &); done; sleep 0.1")
    if real.warm:
        await until_warm(real.provider)
    stats = [procfs.read_stat(pid) for pid in procfs.own_children() - others]
    assert [stat for stat in stats if stat is not None and not stat.alive] == []


async def test_reap_removes_what_a_dead_predecessor_left(real):
    """Workspaces and processes of the same owner are removed, and named."""
    left = real.root / "left-1"
    (left / "job").mkdir(parents=True)
    (left / "job").chmod(0)
    command = await real.start("sleep 1000")
    assert await real.provider.reap() == ["left-1"]
    assert not left.exists()
    await command.kill()


PREDECESSOR = """
import asyncio, os, signal, sys
from pathlib import Path
from sandbox.base import ExecRequest, SandboxRequest, Tier
from sandbox.filesystem.provider import FilesystemProvider

async def main(root, owner, tier, sleep):
    provider = FilesystemProvider(Path(root), owner_label=owner, tier=Tier.parse(tier))
    sandbox = await provider.create(SandboxRequest(name="crashed-1", min_tier=Tier.PLAIN))
    script = f"(setsid sleep {sleep} &); echo up; sleep {sleep}"
    cwd = sandbox.inside("/job/src")
    command = await sandbox.exec(ExecRequest(argv=("sh", "-c", script), env={}, cwd=cwd))
    async for _ in command.stream():
        break
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_reap_kills_what_a_crashed_predecessor_ran(real):
    """After kill -9 of the owner its commands are dead, at the latest when a successor reaps."""
    sleep = a_sleep()
    argv = [sys.executable, "-c", PREDECESSOR, str(real.root), "crashed", real.backend, sleep]
    with subprocess.Popen(argv) as predecessor:
        assert await asyncio.to_thread(predecessor.wait, DEADLINE_S) == -signal.SIGKILL
    tier = Tier.parse(real.backend)
    successor = FilesystemProvider(real.root, owner_label="crashed", tier=tier)
    if tier is Tier.BWRAP:
        await until(lambda: not running(sleep))
    else:
        assert running(sleep) != []
    assert "crashed-1" in await successor.reap()
    assert running(sleep) == []
    assert not (real.root / "crashed-1").exists()


@pytest.mark.slow
async def test_short_commands_of_many_slots_all_end(real):
    """No sweep of one command takes the end of another that is just being started."""
    count = SHORT_COMMANDS if real.backend != BWRAP else SHORT_COMMANDS // 10

    async def slot() -> set[int]:
        sandbox = await real.another()
        codes = set()
        for _ in range(count):
            _, result = await real.run("exit 7", sandbox=sandbox)
            codes.add(result.exit_code)
        return codes

    async with asyncio.timeout(150):
        assert await asyncio.gather(*(slot() for _ in range(SLOTS))) == [{7}] * SLOTS


@pytest.mark.parametrize("pipes", [0, 1, 2])
async def test_a_command_that_cannot_be_started_leaves_nothing(real, monkeypatch, pipes):
    """Out of descriptors, a start is an error of the sandbox; no descriptor and no entry stays."""
    make, left = os.pipe, [None] * pipes

    def exhausted():
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return make()

    await real.run("true")
    if real.warm:
        await until_warm(real.provider)
    before = os.listdir("/proc/self/fd"), process_tree._LIVE[:]
    assert real.warm or process_tree._LIVE == []
    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", exhausted)
        command = await real.start("true")
        if pipes >= (2 if real.backend == BWRAP else 1):
            assert (await finish(command))[1].exit_code == 0
        else:
            with pytest.raises(SandboxBrokenError, match="Too many open files"):
                await command.wait()
    assert (os.listdir("/proc/self/fd"), process_tree._LIVE) == before
    assert (await real.run("exit 3"))[1].exit_code == 3
