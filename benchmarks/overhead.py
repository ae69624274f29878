"""P46, P47, P48: what one command costs behind the walls, beside the same walls by hand and beside no walls, and how fast a tree dies.

Each tier is measured in a process of its own, first small, then with as much memory resident as a large agent-runner has. One of ours and
one by hand in turn, so that whoever else uses the machine disturbs both alike. CPU time is what others disturb least.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, NamedTuple

from benchmarks import floors
from benchmarks.bare_bubblewrap import BareBubblewrap
from benchmarks.goals import Goal, Group, Reading, UnavailableError
from sandbox.base import ExecRequest, Sandbox, SandboxRequest, Tier
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.process import apply_process_defaults

HEAP_BYTES = 600 << 20
TREE = 100
WARM_UP = 5
_UNAVAILABLE = 3
_PROJECT = Path(__file__).absolute().parent.parent


class Sample(NamedTuple):
    """Commands of one process: medians of the time that passes, and of CPU time, all in ms."""

    own: float
    floor: float
    process_cpu: float
    """Of the process that spawns, for one of ours."""
    own_cpu: float
    """The same with the children that it has collected."""
    floor_cpu: float


class Overhead(Group):
    """One command at a time, and one tree."""

    goals: ClassVar[tuple[Goal, ...]] = (
        Goal("P46", "a command in bwrap, vs the bare command line", 1.15, 1.05),
        Goal("P46", "the same with 600 MiB resident", 1.15, 1.05),
        Goal("P47", "a command in landlock, over a plain spawn", 2, 1, unit="ms"),
        Goal("P47", "the same with 600 MiB resident", 2, 1, unit="ms"),
        Goal("P47", "the same in CPU time, of both processes", 2, 1, unit="ms"),
        Goal("P47", "the same in CPU time, with 600 MiB resident", 2, 1, unit="ms"),
        Goal("P48", f"killing a tree of {TREE} in bwrap", 50, 25, unit="ms"),
        Goal("P48", f"killing a tree of {TREE} in landlock", 50, 25, unit="ms"),
    )

    def round(self) -> list[Reading]:
        """Both tiers."""
        bwrap, bwrap_large, bwrap_kill = self._ask(Tier.BWRAP)
        landlock, landlock_large, landlock_kill = self._ask(Tier.LANDLOCK)
        return [
            *(Reading(each.own / each.floor, _detail(each)) for each in (bwrap, bwrap_large)),
            *(Reading(each.own - each.floor, _detail(each)) for each in (landlock, landlock_large)),
            *(
                Reading(each.own_cpu - each.floor_cpu, _cpu_detail(each))
                for each in (landlock, landlock_large)
            ),
            *(
                Reading(each.own, f"{each.process_cpu:.0f} ms CPU in our process")
                for each in (bwrap_kill, landlock_kill)
            ),
        ]

    def _ask(self, tier: Tier) -> list[Sample]:
        root = Path(tempfile.mkdtemp(prefix="o-", dir=self.plan.root))
        root.chmod(0o711)
        count = str(self.plan.amount(200, 60))
        argv = [sys.executable, "-m", "benchmarks.overhead", tier.label, str(root), count]
        done = subprocess.run(argv, cwd=_PROJECT, capture_output=True, text=True, check=False)
        if done.returncode == _UNAVAILABLE:
            raise UnavailableError(f"not available: {done.stdout.strip()}")
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-500:])
        return [Sample(*each) for each in json.loads(done.stdout)]


def _detail(sample: Sample) -> str:
    return (
        f"{sample.own:.1f} of {sample.floor:.1f} ms; {sample.process_cpu:.1f} ms CPU in our process"
    )


def _cpu_detail(sample: Sample) -> str:
    """Tell the CPU time of both; not for bubblewrap, whose inner processes nobody collects after a bare one."""
    return f"{sample.own_cpu:.1f} of {sample.floor_cpu:.1f} ms"


async def command(sandbox: Sandbox, request: ExecRequest) -> None:
    """Run a command to its end.

    Raises:
        RuntimeError: It failed.
    """
    running = await sandbox.exec(request)
    async for _ in running.stream():
        pass
    result = await running.wait()
    if result.exit_code != 0:
        raise RuntimeError(f"the command ended with {result.exit_code}")


async def compared(sandbox: Sandbox, floor: Callable[[], None], count: int) -> Sample:
    """Run some commands, and the floor as often, in turn."""
    samples = []
    source = sandbox.inside("/job/src")
    request = ExecRequest(argv=(floors.TRUE,), env={}, cwd=source, timeout_s=60)
    for _ in range(WARM_UP + count):
        before = _clocks()
        await command(sandbox, request)
        between = _clocks()
        floor()
        own, process_cpu, own_cpu = (b - a for a, b in zip(before, between, strict=True))
        bare, _, floor_cpu = (b - a for a, b in zip(between, _clocks(), strict=True))
        samples.append((own, bare, process_cpu, own_cpu, floor_cpu))
    columns = zip(*samples[WARM_UP:], strict=True)
    return Sample(*(statistics.median(column) * 1000 for column in columns))


def _clocks() -> tuple[float, float, float]:
    """Return the time, the CPU time of this process, and the same with its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time()
    return time.perf_counter(), own, own + children.ru_utime + children.ru_stime


async def kill(sandbox: Sandbox) -> Sample:
    """Kill a tree of processes in sessions of their own that ignore TERM."""
    script = f"trap '' TERM; for _ in $(seq {TREE}); do setsid sleep 1000 & done; echo up; wait"
    request = ExecRequest(
        argv=("/bin/sh", "-c", script), env={}, cwd=sandbox.inside("/job/src"), timeout_s=60
    )
    running = await sandbox.exec(request)
    async for _ in running.stream():
        break
    while len(await running.processes()) < TREE:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.05)
    before = _clocks()
    await running.kill()
    taken, process_cpu, _ = ((b - a) * 1000 for a, b in zip(before, _clocks(), strict=True))
    return Sample(taken, 0, process_cpu, 0, 0)


async def measure(tier: Tier, root: Path, count: int) -> list[Sample]:
    """Return the comparison while this process is small, while it is large, and the time of a kill."""
    stack = ExitStack()
    floor = floors.spawn_true
    if tier is Tier.BWRAP:
        floor = BareBubblewrap(root / "bare", stack).spawn_least
    provider = FilesystemProvider(root / "w", owner_label="bench", tier=tier)
    try:
        sandbox = await provider.create(SandboxRequest(name="overhead-1"))
        small = await compared(sandbox, floor, count)
        heap = mmap.mmap(-1, HEAP_BYTES)
        heap.madvise(mmap.MADV_NOHUGEPAGE)  # page tables are what a fork copies
        for offset in range(0, HEAP_BYTES, mmap.PAGESIZE):
            heap[offset] = 1
        large = await compared(sandbox, floor, count)
        heap.close()
        kills = sorted([await kill(sandbox) for _ in range(3)])
    finally:
        await provider.close()
        stack.close()
    return [small, large, kills[1]]


def main() -> int:
    """Print the samples as JSON."""
    tier, root, count = sys.argv[1:]
    apply_process_defaults()  # as the agent-runner does: no program that sets limits is in front of a command then
    try:
        print(json.dumps(asyncio.run(measure(Tier.parse(tier), Path(root), int(count)))))
    except (SandboxUnavailableError, UnavailableError) as error:
        print(error)
        return _UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
