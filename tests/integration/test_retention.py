"""Old jobs go, with their logs, at the right time and not before; a death in the middle loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from daemon.artifacts.blob_store import BlobStore
from daemon.clock import FixedClock
from daemon.errors import JobNotFoundError
from daemon.jobs.log_files import LogFiles
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.store import JobStore
from daemon.server.retention import Retention
from daemon.server.retention_limits import RetentionLimits
from daemon.server.signals import Signals, log_key
from runner.v1 import job_service_pb2 as pb
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    SUCCESS,
    submitted,
    submitted_one,
)
from tests.integration.grpc_server import FakeAgent, refused, serving

Code = grpc.StatusCode
NONE = RetentionLimits(max_jobs=0, max_age_days=0, max_log_bytes=0)
DAY_S = 86_400

SWEEPER = """
import asyncio, sys
from pathlib import Path
from daemon.artifacts.blob_store import BlobStore
from daemon.clock import FixedClock
from daemon.jobs.log_files import LogFiles
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.server.retention import Retention
from daemon.server.retention_limits import RetentionLimits
from daemon.server.signals import Signals

async def main():
    root = Path(sys.argv[1])
    store = SqliteJobStore(root / "jobs.db", FixedClock())
    await store.open()
    limits = RetentionLimits(max_jobs=1, max_age_days=0, max_log_bytes=0)
    print("ready", flush=True)
    while True:
        await Retention(
            store=store, logs=LogFiles(root / "logs"), blobs=BlobStore(root / "artifacts"), signals=Signals(), clock=FixedClock(), limits=limits
        ).sweep()

asyncio.run(main())
"""


@pytest.fixture
def clock():
    return FixedClock()


@pytest.fixture
async def store(tmp_path, clock):
    store = SqliteJobStore(tmp_path / "jobs.db", clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    logs = LogFiles(folder)
    yield logs
    logs.close()


def retention(
    store: JobStore,
    logs: LogFiles,
    clock: FixedClock,
    limits: RetentionLimits,
    signals: Signals | None = None,
    *,
    blobs: BlobStore | None = None,
) -> Retention:
    return Retention(
        store=store,
        logs=logs,
        blobs=blobs or BlobStore(Path("/nonexistent")),
        signals=signals or Signals(),
        clock=clock,
        limits=limits,
    )


async def ended(store: JobStore, logs: LogFiles, count: int) -> list[str]:
    """Run some jobs whose logs have three bytes."""
    ids = []
    for _ in range(count):
        await submitted(store)
        (claim,) = await store.claim(OFFER, 1, LEASE_S)
        logs.append(claim.lease.job_id, 1, 0, b"abc")
        logs.close_attempt(claim.lease.job_id, 1)
        await store.finish(claim.lease, SUCCESS)
        ids.append(claim.lease.job_id)
    return ids


async def kept(store: JobStore, ids: list[str]) -> list[str]:
    return [job.id for job in reversed((await store.list((), 1000, "")).jobs) if job.id in ids]


def files(tmp_path: Path) -> set[str]:
    return {file.name.partition("-")[0] for file in (tmp_path / "logs").iterdir()}


async def test_by_count(tmp_path, store, logs, clock):
    """The oldest go until the number is right, with attempts, events and logs; in several steps."""
    ids = await ended(store, logs, 250)

    await retention(store, logs, clock, RetentionLimits(max_jobs=20)).sweep()

    assert await kept(store, ids) == ids[-20:]
    assert files(tmp_path) == set(ids[-20:])
    assert await store.attempts(ids[0]) == []
    events = await store.events(0, 1000, ())
    assert {event.job_id for event in events} == set(ids[-20:])
    assert await store.last_event_id() == 750
    with pytest.raises(JobNotFoundError):
        await store.get(ids[0])


async def test_by_age(store, logs, clock):
    """What ended before the age goes; what ended since and what has not ended stays."""
    old = await ended(store, logs, 3)
    (waiting,) = await submitted(store)
    clock.advance(2 * DAY_S)
    await store.cancel(waiting)
    young = await ended(store, logs, 2)
    (pending,) = await submitted(store)

    await retention(store, logs, clock, RetentionLimits(max_age_days=1)).sweep()

    everything = [*old, waiting, *young, pending]
    assert await kept(store, everything) == [waiting, *young, pending]


async def test_by_log_bytes(store, logs, clock):
    """As many go as hold what is too much."""
    ids = await ended(store, logs, 6)

    await retention(store, logs, clock, RetentionLimits(max_log_bytes=9)).sweep()

    assert await kept(store, ids) == ids[3:]
    assert await store.log_bytes() == 9


async def test_no_bounds(store, logs, clock):
    """Zero keeps everything."""
    ids = await ended(store, logs, 3)
    clock.advance(1000 * DAY_S)

    await retention(store, logs, clock, NONE).sweep()

    assert await kept(store, ids) == ids


async def test_references_stay(store, logs, clock):
    """What a job that has not ended depends on stays, and a log that is being read."""
    first, _, third, _ = ids = await ended(store, logs, 4)
    root = await submitted_one(store)
    blocked = await submitted_one(store, depends_on=(first, root))
    signals = Signals()
    sweep = retention(store, logs, clock, RetentionLimits(max_jobs=1), signals).sweep

    with signals.subscribe((third, log_key(third))):
        await sweep()
    assert await kept(store, ids) == [first, third]

    await store.cancel(blocked)
    await submitted(store)
    await sweep()
    assert await kept(store, [*ids, blocked]) == [blocked]


async def test_kill_at_any_moment(tmp_path, store, logs, clock):
    """After each death a job has its log or is gone; what is left of it goes with the next start."""
    ids = await ended(store, logs, 600)
    await store.close()
    for round_ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", SWEEPER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        await asyncio.sleep(0.004 * round_)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        after = SqliteJobStore(tmp_path / "jobs.db", clock)
        await after.open()
        left = set(await kept(after, ids))
        listed = {log.job_id for log in await after.removed_logs(1000)}
        await after.close()
        assert left <= files(tmp_path) <= left | listed

    last = SqliteJobStore(tmp_path / "jobs.db", clock)
    await last.open()
    await retention(last, logs, clock, RetentionLimits(max_jobs=1)).sweep()
    assert files(tmp_path) == set(ids[-1:])
    assert await last.removed_logs(9) == []
    await last.close()


async def test_watch_after_a_removal(tmp_path):
    """A watcher that would miss events is told; one that starts at the oldest kept or at a kept job is not."""
    limits = RetentionLimits(max_jobs=1)
    async with serving(tmp_path) as first:
        agent = await FakeAgent(first).connect()
        jobs = []
        for _ in range(3):
            jobs.append(await first.submit())
            await agent.finish((await agent.assignment()).lease, b"abc")
    async with serving(tmp_path, retention=limits) as client:
        async with asyncio.timeout(30):
            while len((await client.jobs.ListJobs(pb.ListJobsRequest())).jobs) > 1:
                await asyncio.sleep(0.01)

        async with refused(Code.OUT_OF_RANGE, "EVENTS_REMOVED"):
            await client.jobs.WatchJobs(pb.WatchJobsRequest(after_event_id=1)).read()
        async with refused(Code.NOT_FOUND, "JOB_NOT_FOUND"):
            await client.jobs.WatchJobs(pb.WatchJobsRequest(job_ids=[jobs[0].id])).read()
        for request in (
            pb.WatchJobsRequest(),
            pb.WatchJobsRequest(job_ids=[jobs[2].id], after_event_id=1),
        ):
            watch = client.jobs.WatchJobs(request)
            events = (await watch.read()).events
            assert {event.job_id for event in events} == {jobs[2].id}
            watch.cancel()
