"""P28: what a claim costs when a hundred thousand jobs are ready, against a hundred.

The product's own store, in a process of its own; each claim waits for its commit, as the dispatcher's do.
``python -m benchmarks.long_queue FOLDER SHORT LONG CLAIMS`` prints the two lists of seconds.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from agent_runner.job_spec import JobSpec
from benchmarks.goals import Goal, Group, Reading
from daemon.clock import SystemClock
from daemon.jobs.models import AgentIdentity, AgentOffer, NewJob
from daemon.jobs.sqlite_store import SqliteJobStore

READY = (100, 100_000)
BATCH = 1000
LEASE_S = 30.0
OFFER = AgentOffer(agent=AgentIdentity(name="bench", incarnation="1"))
_PROJECT = Path(__file__).absolute().parent.parent


class LongQueue(Group):
    """Claims from both queues in turn; each job that was taken is replaced outside the measurement."""

    goals = (Goal("P28", "claim p50, 100,000 jobs ready, vs 100 ready", 2, 1.2),)

    def prepare(self, stack: ExitStack) -> None:
        """Start the process, which fills both queues first."""
        folder = self.plan.root / "p28"
        folder.mkdir()
        argv = [sys.executable, "-m", "benchmarks.long_queue", str(folder), *map(str, READY)]
        self._process = stack.enter_context(
            subprocess.Popen(
                [*argv, str(self.plan.amount(300, 100))],
                cwd=_PROJECT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(self._process.kill)
        self._ask()

    def round(self) -> list[Reading]:
        """Claims; medians."""
        few, many = (statistics.median(times) * 1e6 for times in self._ask())
        return [Reading(many / few, f"{many:.0f} us of {few:.0f} us")]

    def _ask(self) -> list[list[float]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process with the two queues has died")
        found: list[list[float]] = json.loads(line)
        return found


class Queue:
    """A store with a number of ready jobs, which stays the same."""

    def __init__(self, path: Path) -> None:
        self._store = SqliteJobStore(path, SystemClock())
        self._jobs = 0

    async def fill(self, count: int) -> None:
        """Open the store and queue the jobs."""
        await self._store.open()
        for begun in range(0, count, BATCH):
            await self._submit(min(BATCH, count - begun))

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def claim_s(self) -> float:
        """Claim one job and return the seconds it took; queue another one."""
        start = time.perf_counter()
        claims = await self._store.claim(OFFER, 1, LEASE_S)
        elapsed = time.perf_counter() - start
        if len(claims) != 1:
            raise RuntimeError(f"{len(claims)} jobs were claimed, not one")
        await self._submit(1)
        return elapsed

    async def _submit(self, count: int) -> None:
        first, self._jobs = self._jobs, self._jobs + count
        spec = JobSpec(argv=("/bin/true",))
        await self._store.submit(
            [
                NewJob(id=f"job{number:09}", spec=spec, request_id=None, payload_sha256="")
                for number in range(first, self._jobs)
            ]
        )


async def serve(folder: Path, counts: list[int], claims: int) -> None:
    """Fill a queue per count; answer each line of stdin with the seconds of some claims from each."""
    queues = [Queue(folder / f"{count}.db") for count in counts]
    for queue, count in zip(queues, counts, strict=True):
        await queue.fill(count)
    while await asyncio.to_thread(sys.stdin.readline):
        found: list[list[float]] = [[] for _ in queues]
        for _ in range(claims):
            for queue, times in zip(queues, found, strict=True):
                times.append(await queue.claim_s())
        print(json.dumps(found), flush=True)
    for queue in queues:
        await queue.close()


if __name__ == "__main__":
    root, few_jobs, many_jobs, times_each = sys.argv[1:]
    asyncio.run(serve(Path(root), [int(few_jobs), int(many_jobs)], int(times_each)))
