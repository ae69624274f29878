"""A database of an earlier version is opened and works: jobs in every state go on as if nothing had happened."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from agent_runner.job_spec import ConcurrencySpec
from daemon.clock import FixedClock
from daemon.jobs.models import AgentIdentity, AgentOffer, Excess, LeaseRef
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.states import JobState
from tests.contract.job_store_backends import SUCCESS, claimed_ids, new_job, submitted_one

DATABASES = Path(__file__).with_name("databases")
AGENT = AgentIdentity(name="agent", incarnation="1")
OFFER = AgentOffer(agent=AGENT, labels={"os": "linux"})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteJobStore]:
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((DATABASES / "schema_2.sql").read_text())
    store = SqliteJobStore(path, FixedClock())
    await store.open()
    yield store
    await store.close()


async def test_everything_is_there(store: SqliteJobStore):
    """States, attempts, events and request ids."""
    jobs = {job.id: job for job in (await store.list((), 100, "")).jobs}
    assert {name: job.state.lower() for name, job in jobs.items()} == {
        "succeeded": "succeeded",
        "failed": "failed",
        "cancelled": "cancelled",
        "lost": "pending",
        "running": "running",
        "cancelling": "cancelling",
        "pending": "pending",
        "urgent": "pending",
    }
    assert (jobs["lost"].losses, jobs["lost"].failures, jobs["lost"].ready_us) == (1, 0, None)
    assert jobs["failed"].spec.retries is None
    assert [attempt.number for attempt in await store.attempts("lost")] == [1, 2]
    assert len(await store.events(0, 1000, ())) == await store.last_event_id() == 20
    (again,) = await store.submit([new_job(request_id="request failed")])
    assert again.id == "failed"


async def test_queue_goes_on(store: SqliteJobStore):
    """Old jobs are claimed in their order, also among new ones; leases are still held."""
    for lease in await store.held(AGENT):
        await store.finish(lease, SUCCESS)
    grouped = await submitted_one(store, concurrency=ConcurrencySpec(group="g"))

    assert await claimed_ids(store, OFFER) == ["urgent", "lost", "pending", grouped]
    assert (await store.get("running")).state is JobState.SUCCEEDED


async def test_new_things_reach_old_jobs(store: SqliteJobStore):
    """Old jobs can be depended on, listed by label, and removed with their events."""
    waiting = await submitted_one(store, depends_on=("pending", "succeeded"))
    assert (await store.get(waiting)).state is JobState.BLOCKED
    page = await store.list((), 9, "", labels={"os": "linux"})
    assert [job.id for job in page.jobs] == ["succeeded"]

    removed = await store.remove_ended(Excess(jobs=9), (), 100)

    assert removed.jobs == 2  # not `succeeded`, on which the new one depends
    assert {event.job_id for event in await store.events(0, 100, ())}.isdisjoint(
        {"failed", "cancelled"}
    )
    await store.cancel("pending")
    assert (await store.get(waiting)).state is JobState.FAILED
    assert isinstance((await store.held(AGENT))[0], LeaseRef)
