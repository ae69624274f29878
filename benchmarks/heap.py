"""P30: whether spawning a command becomes slower with the memory of the process that spawns it.

Whatever forks instead of vforking copies the page tables of its process: tens of milliseconds here.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.floors import TRUE
from benchmarks.goals import Goal, Group, Reading, UnavailableError
from sandbox.base import ExecRequest, Sandbox, SandboxRequest, Tier
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.provider import FilesystemProvider
from sandbox.process import apply_process_defaults

HEAP_BYTES = 600 << 20
BLOCK = 10
_UNAVAILABLE = 3
_PROJECT = Path(__file__).absolute().parent.parent


class Heap(Group):
    """The launcher of each tier in a process of its own."""

    goals = (
        Goal("P30", "plain spawn with a 600 MB heap vs a small one", 1.3, 1.1),
        Goal("P30", "landlock spawn, the same", 1.3, 1.1),
        Goal("P30", "bwrap spawn, the same", 1.3, 1.1),
    )

    def round(self) -> list[Reading]:
        """All tiers in turn."""
        return [self._ratio(tier) for tier in (Tier.PLAIN, Tier.LANDLOCK, Tier.BWRAP)]

    def _ratio(self, tier: Tier) -> Reading:
        root = Path(tempfile.mkdtemp(prefix="h-", dir=self.plan.root))
        root.chmod(0o711)
        blocks = str(self.plan.amount(4, 2))
        argv = [sys.executable, "-m", "benchmarks.heap", tier.label, str(root / "w"), blocks]
        done = subprocess.run(argv, cwd=_PROJECT, capture_output=True, text=True, check=False)
        if done.returncode == _UNAVAILABLE:
            raise UnavailableError(f"not available: {done.stdout.strip()}")
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-500:])
        small, large = (statistics.median(times) * 1000 for times in json.loads(done.stdout))
        return Reading(large / small, f"{large:.1f} ms of {small:.1f} ms")


async def spawns(sandbox: Sandbox, count: int) -> list[float]:
    """Return the seconds that each of some commands takes, one after the other."""
    request = ExecRequest(argv=(TRUE,), env={}, cwd=sandbox.inside("/job/src"), timeout_s=60)
    times = []
    for _ in range(count):
        start = time.perf_counter()
        command = await sandbox.exec(request)
        async for _ in command.stream():
            pass
        result = await command.wait()
        times.append(time.perf_counter() - start)
        if result.exit_code != 0:
            raise RuntimeError(f"the command ended with {result.exit_code}")
    return times


async def measure(tier: Tier, root: Path, blocks: int) -> tuple[list[float], list[float]]:
    """Return the times with a small heap and with a large one, in turn."""
    provider = FilesystemProvider(root, owner_label="bench", tier=tier, allow_plain=True)
    small, large = list[float](), list[float]()
    try:
        sandbox = await provider.create(SandboxRequest(name="heap-1", min_tier=Tier.PLAIN))
        await spawns(sandbox, BLOCK)
        for _ in range(blocks):
            small += await spawns(sandbox, BLOCK)
            heap = mmap.mmap(-1, HEAP_BYTES)
            heap.madvise(mmap.MADV_NOHUGEPAGE)  # page tables are what a fork copies
            for offset in range(0, HEAP_BYTES, mmap.PAGESIZE):
                heap[offset] = 1
            large += await spawns(sandbox, BLOCK)
            heap.close()
    finally:
        await provider.close()
    return small, large


def main() -> int:
    """Print the two lists of times as JSON."""
    tier, root, blocks = sys.argv[1:]
    apply_process_defaults()
    try:
        print(json.dumps(asyncio.run(measure(Tier.parse(tier), Path(root), int(blocks)))))
    except SandboxUnavailableError as error:
        print(error)
        return _UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
