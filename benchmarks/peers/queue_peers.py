"""P1, P2, P5: other job queues, doing the same work as the runner's jobs: ``/bin/true``, its output, its result, its end."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from benchmarks.bare import GAP_S, own_seconds, percentile
from benchmarks.client_process import ClientProcess
from benchmarks.goals import Goal, Group, Plan, Reading
from benchmarks.installation import Installation
from benchmarks.peers import databases, place
from benchmarks.peers.service import service
from benchmarks.throughput import PLAIN, jobs_seconds, reading, with_cpu_ms

_WARM_JOBS = 50


@dataclass(frozen=True, slots=True)
class QueuePeer:
    """How one peer is set up. Its app is ``benchmarks.peers.NAME_app``."""

    name: str
    queue: Callable[[Path], AbstractContextManager[str]]
    """Runs what it keeps its queue in; yields what its app finds as BENCH_QUEUE."""
    worker: Callable[[int], list[str]]
    """Returns the arguments of the interpreter for a worker with so many jobs at a time."""
    set_up: tuple[str, ...] = ()
    """Arguments of the interpreter for what is done once."""

    @contextmanager
    def running(self, plan: Plan, workers: int) -> Iterator[ClientProcess]:
        """Run queue and worker for as long as the block lasts; yield a submitter that has run some jobs."""
        folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=plan.root))
        python = place.python(self.name)
        app = f"benchmarks.peers.{self.name}_app"
        with self.queue(folder) as queue:
            env = {"BENCH_QUEUE": queue}
            if self.set_up:
                argv = [python, *self.set_up]
                environment = env | {"PATH": place.PATH}
                subprocess.run(
                    argv, env=environment, cwd=place.PROJECT, capture_output=True, check=True
                )
            log = folder / "worker.log"
            submitter = (python, "-m", "benchmarks.peers.submitter", app)
            with (
                service([python, *self.worker(workers)], log, env=env),
                ClientProcess(submitter, env | {"PATH": place.PATH}) as client,
            ):
                client.ask("each", jobs=_WARM_JOBS)
                yield client


@contextmanager
def _file(folder: Path) -> Iterator[str]:
    yield str(folder / "queue.db")


def _huey_worker(threads: int) -> list[str]:
    # Looks every 2 ms, and does not become slower while there is nothing.
    looks = ("-d", "0.002", "-m", "0.002", "-b", "1", "--no-periodic")
    consumer = ("-m", "huey.bin.huey_consumer", "benchmarks.peers.huey_app.app")
    return [*consumer, "-k", "thread", "-w", str(threads), *looks, "-q"]


def _celery_worker(processes: int) -> list[str]:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")
    worker = ("-m", "celery", "-A", "benchmarks.peers.celery_app", "worker", "-P", "prefork")
    return [*worker, "-c", str(processes), *quiet]


_PROCRASTINATE = ("-m", "procrastinate", "--app=benchmarks.peers.procrastinate_app.app")


def _procrastinate_worker(concurrency: int) -> list[str]:
    return [*_PROCRASTINATE, "worker", "--concurrency", str(concurrency)]


HUEY = QueuePeer("huey", _file, _huey_worker)
CELERY = QueuePeer("celery", databases.redis, _celery_worker)
PROCRASTINATE = QueuePeer(
    "procrastinate",
    databases.postgres,
    _procrastinate_worker,
    (*_PROCRASTINATE, "schema", "--apply"),
)


class Throughput(Group):
    """Half of the peer's jobs, the runner's, the other half. One call per job on both sides."""

    peer: ClassVar[QueuePeer]
    slots: ClassVar[int] = 8

    def prepare(self, stack: ExitStack) -> None:
        """Start both, and let each run some jobs."""
        self._peer = stack.enter_context(self.peer.running(self.plan, self.slots))
        self._client = stack.enter_context(ClientProcess())
        flags = (*PLAIN, "--slots", str(self.slots))
        self._installation = stack.enter_context(Installation(self.plan, *flags))
        jobs_seconds(self._client, self._installation, _WARM_JOBS)

    def round(self) -> list[Reading]:
        """Jobs per second of both."""
        jobs = self.plan.amount(400, 150)
        own = partial(jobs_seconds, self._client, self._installation)
        first, first_cpu = with_cpu_ms(jobs // 2, self._peer_seconds)
        seconds, cpu = with_cpu_ms(jobs, own)
        last, last_cpu = with_cpu_ms(jobs // 2, self._peer_seconds)
        rate = jobs // 2 * 2 / (first + last)
        detail = f"; CPU a job {cpu:.1f} of {(first_cpu + last_cpu) / 2:.1f} ms"
        return [reading(jobs, seconds, rate, detail)]

    def _peer_seconds(self, jobs: int) -> float:
        return float(self._peer.ask("each", jobs=jobs))


class AgainstHuey(Throughput):
    """The fastest peer that syncs every commit."""

    peer = HUEY
    goals = (
        Goal("P1", "no-op jobs/s, vs huey (SQLite, fsync, 8 threads)", 1.0, 1.5, at_most=False),
    )


class AgainstCelery(Throughput):
    """Does not sync before it acknowledges."""

    peer = CELERY
    goals = (Goal("P2", "no-op jobs/s, vs celery prefork (Redis everysec)", 1.2, 2, at_most=False),)


class AgainstProcrastinate(Throughput):
    """Syncs every commit."""

    peer = PROCRASTINATE
    goals = (Goal("P2", "no-op jobs/s, vs procrastinate (PostgreSQL)", 1.5, 3, at_most=False),)


class Latency(Group):
    """One job at a time on idle systems, in blocks of ten."""

    goals = (
        Goal("P5", "submit to end p50 when idle, vs celery prefork", 1.3, 1.0),
        Goal("P5", "submit to end p95 when idle, vs own p50", 2, 2),
    )

    def prepare(self, stack: ExitStack) -> None:
        """Start both with two workers, and let each run some jobs."""
        self._peer = stack.enter_context(CELERY.running(self.plan, 2))
        self._client = stack.enter_context(ClientProcess())
        self._installation = stack.enter_context(Installation(self.plan, *PLAIN))
        own_seconds(self._client, self._installation, 5, 0)

    def round(self) -> list[Reading]:
        """Medians of both."""
        peer, own = list[float](), list[float]()
        for _ in range(self.plan.amount(3, 2)):
            peer += self._peer.ask("latencies", count=10, gap_s=GAP_S)
            own += own_seconds(self._client, self._installation, 10, GAP_S)
        theirs, ours, late = (
            1000 * seconds
            for seconds in (statistics.median(peer), statistics.median(own), percentile(own, 0.95))
        )
        return [
            Reading(ours / theirs, f"{ours:.1f} ms of {theirs:.1f} ms"),
            Reading(late / ours, f"{late:.1f} ms of {ours:.1f} ms"),
        ]
