"""Sandboxes that are built ahead: each is what a cold start would have made, serves one job, and never outlives its runner."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import procfs
from sandbox.base import ExecRequest, Network, SandboxRequest, Tier
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER
from sandbox.errors import SandboxBrokenError, SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.filesystem.workspace import SPARE_PREFIX
from sandbox.limits import Limits
from tests.contract.sandbox_backends import finish, until, until_warm
from tests.waiting import wait_until

EVERYTHING = r"""
env | sort
cat /proc/self/limits
grep -E '^(Uid|Gid|Groups|Umask|Sig[PBIC]|Shd|Cap|NoNew|Seccomp|Cpus|Speculation)' /proc/self/status
grep -vE '^(State|SigQ|Vm|Rss|Hugetlb|vol|nonvol)' /proc/1/status
cut -d' ' -f2,4-8 /proc/$$/stat
ls -l /proc/self/fd | sed 's/.* -> //' | tr -d 0-9
pwd; umask; hostname; id
cut -d' ' -f3- /proc/self/mountinfo
cat /proc/self/cgroup /proc/self/oom_score_adj
[ "$(readlink /proc/self/ns/net)" = "$HOST" ]; echo "own network: $?"
stat -c '%n %a %u %g %h' /job /job/* /tmp /home/* /dev/* /etc /etc/*
"""
"""What a command can find out about where it is."""
OWN = re.compile(r"\d+:\d+ |[\w/.-]*/(?=(n|\.shared)/?)|/runner-[\w-]+|uid=\d+,gid=\d+")
"""What is different between any two sandboxes."""
SPAWNER = """
import asyncio, sys
from pathlib import Path
from sandbox.base import Tier
from sandbox.filesystem.provider import FilesystemProvider

async def main():
    provider = FilesystemProvider(
        Path(sys.argv[1]), owner_label=sys.argv[2], tier=Tier.BWRAP, warm_slots=2
    )
    await provider.probe()
    while len(provider.parked_pids) < 2:
        await asyncio.sleep(0.01)
    print(*provider.parked_pids, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def provider_in(root: Path, count: int = 1) -> FilesystemProvider:
    """Return one of the tier that builds ahead."""
    return FilesystemProvider(
        root, owner_label=f"warm-{os.getpid()}", tier=Tier.BWRAP, warm_slots=count
    )


@pytest.fixture
async def warm(reachable_dir):
    """A provider with one slot that waits."""
    provider = provider_in(reachable_dir / "w")
    try:
        await provider.probe()
    except SandboxUnavailableError as error:
        pytest.skip(f"bubblewrap does not work here: {error}")
    await until_warm(provider)
    yield provider
    await provider.close()
    assert not (reachable_dir / "w").exists()


async def run(sandbox, script="echo ran", env=None, cwd="/job/src"):
    """Run a script to its end."""
    argv = ("/bin/sh", "-c", script)
    return await finish(await sandbox.exec(ExecRequest(argv=argv, env=env or {}, cwd=cwd)))


def below(pid: int) -> set[int]:
    """Return a process and all its descendants."""
    return procfs.descendants(procfs.snapshot(), {pid}) | {pid}


def all_dead(pids: set[int]) -> bool:
    """Tell whether none of these processes lives."""
    return not any((stat := procfs.read_stat(pid)) is not None and stat.alive for pid in pids)


@pytest.mark.parametrize("network", [Network.ON, Network.OFF])
async def test_it_is_the_sandbox_that_a_cold_start_makes(warm, reachable_dir, network):
    """Whatever a command can find out about where it is, is the same."""
    if network is Network.OFF:  # slots are parked for what was asked for twice
        first = set(warm.parked_pids)
        for name in ("first", "second"):
            await (await warm.create(SandboxRequest(name=name, network=network))).destroy()
        await until(lambda: warm.parked_pids and not first & set(warm.parked_pids))
    cold = provider_in(reachable_dir / "c", 0)
    found = []
    for provider in (warm, cold):
        [*slot] = provider.parked_pids
        sandbox = await provider.create(SandboxRequest(name="n", network=network))
        assert set(provider.parked_pids).isdisjoint(slot)
        env = {"A": "b c", "HOME": "/tmp", "HOST": os.readlink("/proc/self/ns/net")}
        output, result = await run(sandbox, EVERYTHING, env, "/tmp")
        assert result.exit_code == 0
        assert f"own network: {int(network is Network.OFF)}\n".encode() in output
        found.append([OWN.sub("", line) for line in output.decode().splitlines()])
    await cold.close()
    assert found[0] == found[1]


async def test_it_serves_one_job_and_another_takes_its_place(warm):
    """What served a job is dead with it, and the next job gets what was built after it was taken."""
    served: list[set[int]] = []
    for number in range(3):
        await until_warm(warm)
        [slot] = warm.parked_pids
        served.append(below(slot))
        sandbox = await warm.create(SandboxRequest(name=f"job-{number}"))
        output, _ = await run(
            sandbox, "cat left /tmp/left 2>/dev/null; echo x | tee left >/tmp/left"
        )
        assert output == b""
        await sandbox.destroy()
        assert all_dead(served[-1])
    assert not set.intersection(*served)


async def test_one_that_waits_knows_no_job(warm):
    """It has two marks in its environment, and what a job is given before its command begins is nowhere in its memory."""
    [slot] = warm.parked_pids
    environments = {Path(f"/proc/{pid}/environ").read_bytes() for pid in below(slot)}
    [marks] = environments - {b""}
    names = {mark.partition(b"=")[0].decode() for mark in marks.split(b"\0") if mark}
    assert names == {OWNER_MARKER, SANDBOX_MARKER, "PWD"}


async def test_one_that_dies_is_replaced(warm):
    """Who kills what waits costs nobody a job."""
    [slot] = warm.parked_pids
    os.kill(slot, signal.SIGKILL)
    await until(lambda: warm.parked_pids and slot not in warm.parked_pids, "another slot")
    output, _ = await run(await warm.create(SandboxRequest(name="next")))
    assert output == b"ran\n"


async def test_one_that_dies_in_the_hands_of_a_job_is_done_without(warm):
    """Between the making of a sandbox and its first command there may be hours."""
    [slot] = warm.parked_pids
    sandbox = await warm.create(SandboxRequest(name="slow"))
    os.kill(slot, signal.SIGKILL)
    await until(lambda: all_dead({slot}))
    assert (await run(sandbox))[0] == b"ran\n"


async def test_one_whose_walls_are_not_up_is_not_taken(warm):
    """Bubblewrap goes by the names of folders until then; a job that comes meanwhile is started cold."""
    for number in range(6):
        sandbox = await warm.create(SandboxRequest(name=f"soon-{number}"))
        output, result = await run(sandbox)
        assert (output, result.exit_code) == (b"ran\n", 0)
        await sandbox.destroy()
        await asyncio.sleep(0.01 + 0.002 * number)


@pytest.mark.parametrize(
    "request_",
    [
        SandboxRequest(name="other", limits=Limits(memory_bytes=256 << 20)),
        SandboxRequest(name="other", limits=Limits(pids=50)),
        SandboxRequest(name="other", network=Network.OFF),
        SandboxRequest(name="other", network=Network.HOSTS, hosts=("example.org",)),
    ],
    ids=["memory", "pids", "off", "hosts"],
)
async def test_what_asks_for_something_else_is_made_cold(warm, request_):
    """Bounds, another network and a proxy are no part of what waits."""
    [slot] = warm.parked_pids
    sandbox = await warm.create(request_)
    assert set(warm.parked_pids) <= {slot}
    assert (await run(sandbox))[0] == b"ran\n"


async def test_limits_of_each_process_are_those_of_the_job(warm):
    """They are no part of the walls."""
    sandbox = await warm.create(SandboxRequest(name="few", limits=Limits(open_files=77)))
    assert warm.parked_pids == []
    assert (await run(sandbox, "ulimit -n"))[0] == b"77\n"


async def test_a_checkout_is_protected_all_the_same(warm, tmp_path):
    """Its mounts are not in what waits, so the command is started cold, and what was built for it is dead."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("kept\n")
    tree = below(warm.parked_pids[0])
    sandbox = await warm.create(SandboxRequest(name="checkout"))
    await sandbox.upload(tmp_path, "src")
    output, _ = await run(sandbox, "echo x >.git/config; cat .git/config")
    assert output.endswith(b"kept\n")
    assert all_dead(tree)


async def test_a_sandbox_that_runs_nothing_leaves_nothing(warm):
    """A job may be cancelled before its command."""
    tree = below(warm.parked_pids[0])
    sandbox = await warm.create(SandboxRequest(name="cancelled"))
    await sandbox.destroy()
    assert all_dead(tree)


async def test_a_name_that_is_taken_costs_no_slot(warm):
    """It is refused as ever, and what was taken waits on."""
    sandbox = await warm.create(SandboxRequest(name="twice"))
    (Path(warm._root) / "twice").mkdir(exist_ok=True)
    await until_warm(warm)
    [slot] = warm.parked_pids
    with pytest.raises(SandboxBrokenError, match="twice"):
        await warm.create(SandboxRequest(name="twice"))
    assert warm.parked_pids == [slot]
    assert (await run(sandbox))[0] == b"ran\n"


async def test_they_end_with_the_provider(warm):
    """Nothing waits for a runner that has left."""
    tree = below(warm.parked_pids[0])
    await warm.close()
    assert all_dead(tree)


def test_they_die_with_a_runner_that_is_killed(reachable_dir):
    """The kernel sees to that; their folders go at the next start, which names no sandbox."""
    root, label = reachable_dir / "w", f"killed-{os.getpid()}"
    argv = [sys.executable, "-c", SPAWNER, str(root), label]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as spawner:
        assert spawner.stdout is not None
        pids = {int(word) for word in spawner.stdout.readline().split()}
        trees = {each for pid in pids for each in below(pid)}
        spawner.kill()
    assert len(pids) == 2
    wait_until(lambda: all_dead(trees), 20)
    assert any(path.name.startswith(SPARE_PREFIX) for path in root.iterdir())

    async def reap() -> list[str]:
        next_ = FilesystemProvider(root, owner_label=label, tier=Tier.BWRAP, warm_slots=1)
        names = await next_.reap()
        await next_.close()
        return names

    assert asyncio.run(reap()) == []
    assert not any(path.name.startswith(SPARE_PREFIX) for path in root.iterdir())
