"""Bounds on all processes of a command together, by control groups where the host has them, and without."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.base import Sandbox, SandboxRequest, Tier
from sandbox.bounds.control_groups import PREFIX, ControlGroups
from sandbox.bounds.hierarchies import host_hierarchies
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.limits import GIB, MIB, Keeper, Limit, Limits
from tests.contract.deviations import BWRAP, LANDLOCK
from tests.contract.sandbox_backends import Place, finish

PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")
HOLD = "b = bytearray(96 << 20); b[::4096] = b'x' * len(b[::4096]); import time; time.sleep(1.5); print('held')"
BY_GROUPS, BY_LOOKS = "control groups", "watchdog"


@pytest.fixture(
    params=[(tier, by) for tier in (BWRAP, LANDLOCK) for by in (BY_GROUPS, BY_LOOKS)],
    ids="-".join,
)
async def bounded(
    request: pytest.FixtureRequest, reachable_dir: Path
) -> AsyncIterator[tuple[Place, bool]]:
    """A provider of each tier, with the control groups of the host and without any."""
    tier, by = request.param
    label = f"contract-{os.getpid()}"
    hierarchies = host_hierarchies() if by == BY_GROUPS else []
    if by == BY_GROUPS and not hierarchies:
        pytest.skip("no control groups here")
    root = reachable_dir
    provider = FilesystemProvider(
        root,
        owner_label=label,
        tier=Tier.parse(tier),
        allow_plain=True,
        groups=ControlGroups(label, hierarchies),
    )
    try:
        await provider.probe()
    except SandboxUnavailableError as error:
        pytest.skip(f"{tier} does not work here: {error}")
    sandbox = await provider.create(SandboxRequest(name="first", min_tier=Tier.PLAIN))
    place = Place(tier, provider, root, sandbox)
    yield place, by == BY_GROUPS
    await provider.close()
    for hierarchy in hierarchies:
        assert not (hierarchy.parent / f"{PREFIX}{label}").exists()


async def with_limits(place: Place, **limits: Any) -> Sandbox:
    """Make a sandbox with these bounds."""
    return await place.another(limits=Limits(**limits))


async def test_memory_is_bounded_for_all_together(bounded):
    """Eight processes that each fit do not fit together; the end says why."""
    place, _ = bounded
    sandbox = await with_limits(place, memory_bytes=256 * MIB)
    script = f'for i in 1 2 3 4 5 6 7 8; do /usr/bin/python3 -I -S -c "{HOLD}" & done; wait'
    output, result = await place.run(script, sandbox=sandbox)
    assert output.count(b"held") < 8
    assert (result.exceeded, result.stopped, result.timed_out) == (Limit.MEMORY, False, False)
    output, result = await place.run("echo again", sandbox=sandbox)
    assert (output, result.exit_code, result.exceeded) == (b"again\n", 0, None)


async def test_files_in_memory_count(bounded):
    """What is in /dev/shm is memory, whether a process has it mapped or not."""
    place, _ = bounded
    sandbox = await with_limits(place, memory_bytes=128 * MIB)
    script = "head -c 300000000 /dev/zero >/dev/shm/f; sleep 3; echo late"
    output, result = await place.run(script, sandbox=sandbox)
    if place.backend == LANDLOCK:  # closed
        assert (b"late" in output, result.exceeded) == (True, None)
    else:
        assert result.exceeded is Limit.MEMORY
        # Where the kernel kills the writer, its shell may still say so, but no more.
        assert output in (b"", b"Killed\n")


async def test_files_without_a_name_count(bounded):
    """A file of memfd_create(2) is memory too, which no process has mapped."""
    place, _ = bounded
    sandbox = await with_limits(place, memory_bytes=128 * MIB)
    script = (
        "import os, time; fd = os.memfd_create('f');"
        " [os.write(fd, bytes(1 << 20)) for _ in range(300)]; time.sleep(20); print('late')"
    )
    output, result = await place.run(*PYTHON, script, sandbox=sandbox)
    assert (output, result.exceeded) == (b"", Limit.MEMORY)


async def test_memory_of_one_process(bounded):
    """A single process that takes too much is killed, or told that there is no more."""
    place, by_groups = bounded
    sandbox = await with_limits(place, memory_bytes=128 * MIB)
    script = "x = b'x' * (512 << 20); print('got it')"
    output, result = await place.run(*PYTHON, script, sandbox=sandbox)
    assert b"got it" not in output
    assert result.exit_code != 0
    if by_groups:
        assert result.exceeded is Limit.MEMORY


async def test_memory_that_fits(bounded):
    """Nothing happens below the bound; what is only reserved does not count with a control group."""
    place, by_groups = bounded
    sandbox = await with_limits(place, memory_bytes=512 * MIB)
    script = "x = b'x' * (64 << 20); print('fits')"
    output, result = await place.run(*PYTHON, script, sandbox=sandbox)
    assert (output, result.exit_code, result.exceeded) == (b"fits\n", 0, None)
    if by_groups:
        reserve = "import mmap; m = mmap.mmap(-1, 4 << 30); print('reserved')"
        output, _ = await place.run(*PYTHON, reserve, sandbox=sandbox)
        assert output == b"reserved\n"


async def test_a_bound_too_small_for_anything(bounded):
    """A command that is killed before it is one has run out of memory too, or is told so."""
    place, by_groups = bounded
    sandbox = await with_limits(place, memory_bytes=64 * 1024)
    command = await place.start("echo never", sandbox=sandbox)
    if by_groups:
        _, result = await finish(command)
        assert result.exceeded is Limit.MEMORY
    else:
        output, result = await finish(command)
        assert result.exit_code != 0, output


async def test_processes_are_bounded_for_all_together(bounded):
    """A fork bomb stops at the bound, and what the bound allows is there."""
    place, _ = bounded
    sandbox = await with_limits(place, pids=32)
    script = (
        "import os, time\nn = 0\n"
        "try:\n  while n < 200:\n    if os.fork() == 0: time.sleep(30); os._exit(0)\n    n += 1\n"
        "except OSError: pass\nprint(n)"
    )
    output, _ = await place.run(*PYTHON, script, sandbox=sandbox, timeout_s=20, grace_s=0)
    assert 20 <= int(output) <= 32


async def test_the_disk_is_watched(bounded):
    """A job that fills the disk is killed soon after its bound; a sparse file and a link fill nothing."""
    place, _ = bounded
    sandbox = await with_limits(place, disk_bytes=64 * MIB)
    output, result = await place.run(
        "head -c 1000000 /dev/zero >f; truncate -s 50M g; ln f h; sleep 2; echo fine",
        sandbox=sandbox,
    )
    assert (output, result.exceeded) == (b"fine\n", None)
    fill = "i=0; while [ $i -lt 12 ]; do head -c 10000000 /dev/zero >f$i; i=$((i+1)); done; sleep 20; echo late"
    for folder in (".", '"$HOME"', '"$TMPDIR"'):
        output, result = await place.run(f"cd {folder}; {fill}", sandbox=sandbox)
        assert (output, result.exceeded, result.signal) == (b"", Limit.DISK, 9)
        await place.run(f"cd {folder}; rm -f f*", sandbox=sandbox)


async def test_the_disk_cannot_be_filled_without_a_name(bounded):
    """A file that is deleted while it is open takes its place nevertheless."""
    place, _ = bounded
    sandbox = await with_limits(place, disk_bytes=64 * MIB)
    script = (
        "import os, time\nfds = []\nfor i in range(3):\n"
        "  fd = os.open('f', os.O_CREAT | os.O_RDWR); os.unlink('f'); fds.append(fd)\n"
        "  for _ in range(30): os.write(fd, b'x' * (1 << 20))\n"
        "time.sleep(20); print('late')"
    )
    output, result = await place.run(*PYTHON, script, sandbox=sandbox)
    assert (output, result.exceeded) == (b"", Limit.DISK)


async def test_one_file_is_no_larger_than_the_disk(bounded):
    """Its writer is told at once."""
    place, _ = bounded
    sandbox = await with_limits(place, disk_bytes=8 * MIB)
    _, result = await place.run("exec head -c 20000000 /dev/zero >f", sandbox=sandbox)
    assert result.exit_code != 0


async def test_cpu_time_is_bounded(bounded):
    """Half a CPU is half a second in a second; without a control group it is said that nobody keeps it."""
    place, by_groups = bounded
    sandbox = await with_limits(place, cpus=0.5)
    if not by_groups:
        assert [(kept.by, kept.held) for kept in sandbox.info.limits] == [(Keeper.NOBODY, False)]
        return
    script = (
        "import time\ne = time.time() + 2\nwhile time.time() < e: pass\nprint(time.process_time())"
    )
    output, _ = await place.run(*PYTHON, script, sandbox=sandbox)
    assert float(output) < 1.3


async def test_what_keeps_a_bound_is_recorded(bounded):
    """Each bound that was asked for, its value and its keeper; nothing for a job that asks for none."""
    place, by_groups = bounded
    assert place.sandbox.info.limits == ()
    sandbox = await with_limits(place, memory_bytes=GIB, pids=100, disk_bytes=GIB)
    kept = {each.limit: (each.value, each.by) for each in sandbox.info.limits}
    assert kept[Limit.DISK] == (GIB, Keeper.WATCHDOG)
    assert kept[Limit.MEMORY][0] == GIB
    keeper = kept[Limit.MEMORY][1]
    assert keeper in ({Keeper.CGROUP_V1, Keeper.CGROUP_V2} if by_groups else {Keeper.WATCHDOG})


async def test_what_is_required_and_not_held_is_refused(bounded):
    """Before anything is made, with the reason and what to do; what is held is no obstacle."""
    place, by_groups = bounded
    request = {"limits": Limits(memory_bytes=GIB), "require": frozenset({"memory"})}
    if by_groups:
        await place.another(**request)
    else:
        with pytest.raises(SandboxUnavailableError, match="memory: needs a control group"):
            await place.another(**request)
    if place.backend == BWRAP:
        await place.another(require=frozenset({"fs_write", "tree_kill"}))
    else:
        with pytest.raises(SandboxUnavailableError, match="tree_kill"):
            await place.another(require=frozenset({"fs_write", "tree_kill"}))
    with pytest.raises(SandboxUnavailableError, match="network: use network: off"):
        await place.another(require=frozenset({"network"}))


async def test_groups_are_gone_after_their_command(bounded):
    """Also after a kill, and with leftovers in them."""
    place, by_groups = bounded
    if not by_groups:
        return
    sandbox = await with_limits(place, pids=50)
    name = sandbox.base_env["RUNNER_SANDBOX"]
    command = await place.start("sleep 1000 & setsid sleep 1000 & wait", sandbox=sandbox)
    groups = {
        path
        for hierarchy in host_hierarchies()
        for path in hierarchy.parent.glob(f"{PREFIX}contract-{os.getpid()}/{name}.*")
    }
    assert groups
    await command.kill()
    await finish(command)
    assert not any(path.exists() for path in groups)


async def test_a_job_cannot_leave_its_group(bounded):
    """The files of control groups are not there, or not to be written."""
    place, by_groups = bounded
    if not by_groups:
        return
    sandbox = await with_limits(place, pids=50)
    script = "for f in /sys/fs/cgroup/*/cgroup.procs; do echo 0 >$f && echo left; done; true"
    output, _ = await place.run(script, sandbox=sandbox)
    assert b"left" not in output.replace(b"No such", b"")


async def test_leftover_groups_are_removed_at_the_next_start(bounded, tmp_path):
    """With what is in them."""
    _, by_groups = bounded
    if not by_groups:
        return
    label = f"left-{os.getpid()}"
    dead = ControlGroups(label)
    group = dead.create("job-1", Limits(pids=5))
    assert group is not None
    doors = group.open_doors()
    sleeper = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    try:
        for door in doors:
            os.write(door, str(sleeper.pid).encode())
            os.close(door)
        provider = FilesystemProvider(
            tmp_path, owner_label=label, tier=Tier.PLAIN, allow_plain=True
        )
        assert await provider.reap() == ["job-1"]
        await provider.close()
        assert await asyncio.wait_for(sleeper.wait(), 30) == -9
    finally:
        if sleeper.returncode is None:
            sleeper.kill()
