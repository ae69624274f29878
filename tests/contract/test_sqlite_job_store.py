"""What only the durable JobStore promises: it survives, and it refuses what it cannot keep safe."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.errors import StoreUnusableError
from daemon.jobs.migrator import load_migrations
from daemon.jobs.models import Job
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.states import JobState
from tests.contract.job_store_backends import (
    LEASE_S,
    OFFER,
    SUCCESS,
    claimed_ids,
    new_job,
    running,
    submitted,
)

WRITER = """
import asyncio, os, sys
from pathlib import Path
from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, Outcome
from daemon.clock import SystemClock
from daemon.jobs.models import AgentIdentity, AgentOffer, NewJob
from daemon.jobs.sqlite_store import SqliteJobStore

OFFER = AgentOffer(agent=AgentIdentity(name="agent", incarnation="1"))

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

async def one_caller(store, number):
    for count in range(1_000_000):
        job = NewJob(id=f"{number}x{count}", spec=JobSpec(argv=("true",)), request_id=None, payload_sha256="")
        await store.submit([job])
        say("submitted", job.id)
        for claim in await store.claim(OFFER, 1, 30.0):
            say("claimed", claim.lease.job_id)
            await store.finish(claim.lease, Outcome(end_reason=EndReason.EXITED, exit_code=0))
            say("finished", claim.lease.job_id)

async def main():
    store = SqliteJobStore(Path(sys.argv[1]), SystemClock())
    await store.open()
    await asyncio.gather(*(one_caller(store, number) for number in range(8)))

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


async def opened(path: Path) -> SqliteJobStore:
    store = SqliteJobStore(path, FixedClock())
    await store.open()
    return store


async def refusal(path: Path) -> str:
    """Open a store that cannot be used and return the one line that says why."""
    store = SqliteJobStore(path, FixedClock())
    with pytest.raises(StoreUnusableError) as caught:
        await store.open()
    await store.close()
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


async def everything(store: SqliteJobStore) -> list[object]:
    jobs = (await store.list((), 1000, "")).jobs
    attempts = [await store.attempts(job.id) for job in jobs]
    return [jobs, attempts, await store.events(0, 1000, ())]


async def test_a_new_object_sees_everything(path: Path):
    """Jobs, attempts, leases, events, request ids and order are there after a restart."""
    store = await opened(path)
    (first,) = await store.submit([new_job(request_id="r")])
    claim = (await store.claim(OFFER, 1, LEASE_S))[0]
    ids = await submitted(store, 3)
    ended = await running_end(store)
    before = await everything(store)
    await store.close()

    store = await opened(path)

    assert await everything(store) == before
    assert (await store.submit([new_job(request_id="r")]))[0].id == first.id
    await store.check_lease(claim.lease)
    assert await claimed_ids(store) == [job_id for job_id in ids if job_id != ended.id]
    (fresh,) = await submitted(store)
    assert (await store.list((), 1, "")).jobs[0].id == fresh
    await store.close()


async def running_end(store: SqliteJobStore) -> Job:
    (claim,) = await store.claim(OFFER, 1, LEASE_S)
    return await store.finish(claim.lease, SUCCESS)


async def test_killed_writer_loses_nothing_acknowledged(path: Path):
    """kill -9 between two instructions: what was answered is stored, and every job is in one piece."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        lines = [output.readline() for _ in range(600)]
        process.send_signal(signal.SIGKILL)
        lines += output.readlines()
    process.wait()

    store = await opened(path)
    told: dict[str, list[str]] = {"submitted": [], "claimed": [], "finished": []}
    for line in lines:
        verb, job_id = line.decode().split()
        told[verb].append(job_id)
    assert len(told["submitted"]) > 50
    assert len(told["claimed"]) == len(set(told["claimed"]))
    for job_id in told["submitted"]:
        await store.get(job_id)
    for job_id in told["claimed"]:
        assert (await store.get(job_id)).attempt == 1
    for job_id in told["finished"]:
        assert (await store.get(job_id)).state is JobState.SUCCEEDED
    events = await store.events(0, 1_000_000, ())
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    last = {event.job_id: event.state for event in events}
    assert last == {job_id: (await store.get(job_id)).state for job_id in last}
    await store.close()


async def test_three_commits_for_a_job(path: Path):
    """A job costs a commit each to submit, to claim and to finish; looking costs none."""
    store = await opened(path)
    claim = await running(store)
    await store.expire_leases()
    await store.claim(OFFER, 1, LEASE_S)
    await store.check_lease(claim.lease)
    await store.finish(claim.lease, SUCCESS)
    await store.finish(claim.lease, SUCCESS)

    assert store.commits == 3
    await store.close()


async def test_callers_share_commits(path: Path):
    """Calls that arrive together cost far fewer commits than calls."""
    store = await opened(path)

    await asyncio.gather(*(store.submit([new_job()]) for _ in range(500)))

    assert store.commits < 50
    assert await store.count(JobState.PENDING) == 500
    await store.close()


async def test_close_keeps_what_was_accepted(path: Path):
    """Calls that were made before close are answered and stored."""
    store = await opened(path)
    calls = [asyncio.ensure_future(store.submit([new_job()])) for _ in range(20)]
    await asyncio.sleep(0)

    await store.close()

    ids = [jobs[0].id for jobs in await asyncio.gather(*calls)]
    store = await opened(path)
    for job_id in ids:
        await store.get(job_id)
    await store.close()


async def test_closed_store_says_so(path: Path):
    """A call after close is refused, reads and writes alike."""
    store = await opened(path)
    await store.close()

    for call in (store.submit([]), store.get("job"), store.last_event_id()):
        with pytest.raises(StoreUnusableError, match="closed"):
            await call


async def test_every_commit_is_synced(path: Path):
    """The settings that make a commit survive a power cut are on."""
    store = await opened(path)

    settings = await store._writer.run(
        lambda database: [
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    )

    assert settings == ["wal", 2, 1, 5000]
    await store.close()


async def test_close_leaves_one_file(path: Path):
    """An orderly end folds the write-ahead log into the database."""
    store = await opened(path)
    await submitted(store)
    await store.close()

    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_files_are_private(path: Path):
    """The database and its companions can be read by nobody else, whatever the umask."""
    before = os.umask(0)
    try:
        store = await opened(path)
        await submitted(store)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)

    assert set(modes.values()) == {0o600}
    assert path.name in modes


async def test_strange_path(tmp_path: Path):
    """Characters that mean something in a URI are only characters in a path."""
    folder = tmp_path / "a?b=c#d %41 ü"
    folder.mkdir()

    store = await opened(folder / "jobs.db")
    (job_id,) = await submitted(store)

    assert (await store.get(job_id)).id == job_id
    await store.close()


async def test_newer_schema_is_refused(path: Path):
    """A database of a newer runner is named with both versions and stays untouched."""
    await (await opened(path)).close()
    known = len(load_migrations())
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {known + 1}")
    before = path.read_bytes()

    text = await refusal(path)

    assert f"written by a newer runner (schema {known + 1}, this one knows {known})" in text
    assert "upgrade runner or use another --state-dir" in text
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE jobs (id)", "PRAGMA user_version = 1", "PRAGMA application_id = 5"],
)
async def test_foreign_database_is_refused(path: Path, statement: str):
    """The SQLite file of another program stays untouched."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement)
    before = path.read_bytes()

    assert "belongs to another program" in await refusal(path)

    assert path.read_bytes() == before


async def test_no_database_is_refused(path: Path):
    """Any other file stays untouched."""
    path.write_text("my diary\n" * 1000)

    assert "is no database or is damaged" in await refusal(path)

    assert path.read_text().startswith("my diary\n")


async def test_damaged_database_is_refused(path: Path):
    """A database that lost its second half is named, not used."""
    store = await opened(path)
    await submitted(store, 200)
    await store.close()
    os.truncate(path, path.stat().st_size // 2)

    assert "is damaged" in await refusal(path)


async def test_missing_folder_is_refused(tmp_path: Path):
    """A folder that is not there is named by its file."""
    assert "No such file" in await refusal(tmp_path / "nowhere" / "jobs.db")


async def test_folder_is_refused(path: Path):
    """A folder in the place of the file is no database."""
    path.mkdir()

    assert "cannot be opened for writing" in await refusal(path)


async def test_unwritable_is_refused(path: Path):
    """A file that may not be written is refused when it is opened, not at the first submit."""
    await (await opened(path)).close()
    path.chmod(0o400)

    with without_root():
        assert "cannot be opened for writing: Permission denied" in await refusal(path)


@contextmanager
def without_root() -> Iterator[None]:
    """Give up root for a while: no mode of a file stops it."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
