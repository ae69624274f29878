"""Writes share transactions, fail alone, and are answered after their commit."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from daemon.errors import StoreUnusableError
from daemon.jobs.group_commit import MAX_BATCH, GroupCommit


class ExplainedError(Exception):
    """What the tests make of a failure of SQLite."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[GroupCommit]:
    writer = GroupCommit(lambda: connect(path), ExplainedError)
    await writer.open()
    yield writer
    await writer.close()


def connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    database.execute(
        "CREATE TABLE children (id REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
    )
    return database


def add(database: sqlite3.Connection, number: int) -> int:
    database.execute("INSERT INTO parents VALUES (?)", (number,))
    return number


def orphan(database: sqlite3.Connection) -> None:
    """Write what only the commit refuses."""
    database.execute("INSERT INTO children VALUES (-1)")


def stored(path: Path) -> list[int]:
    database = sqlite3.connect(path)
    numbers = [number for (number,) in database.execute("SELECT id FROM parents ORDER BY id")]
    database.close()
    return numbers


async def gathered(*calls: object) -> list[object]:
    return await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]


def together(writer: GroupCommit) -> threading.Event:
    """Hold the writer back until the event is set, so that what is asked meanwhile shares a transaction."""
    go = threading.Event()
    asyncio.ensure_future(writer.run(lambda _: go.wait(10)))  # noqa: RUF006 - ends with the event
    return go


async def test_answers_after_the_commit(writer: GroupCommit, path: Path):
    """What was answered can be read by everybody."""
    assert await writer.run(lambda database: add(database, 7)) == 7

    assert stored(path) == [7]
    assert writer.commits == 1


async def test_many_writes_share_a_commit(writer: GroupCommit, path: Path):
    """Writes that wait together are committed together, up to the bound, in order."""
    go = together(writer)
    await asyncio.sleep(0)
    calls = [
        asyncio.ensure_future(writer.run(partial(add, number=number)))
        for number in range(MAX_BATCH + 1)
    ]
    await asyncio.sleep(0)
    go.set()

    assert await asyncio.gather(*calls) == list(range(MAX_BATCH + 1))
    assert writer.commits <= 3
    assert stored(path) == list(range(MAX_BATCH + 1))


async def test_a_failing_write_takes_back_only_itself(writer: GroupCommit, path: Path):
    """Its neighbours in the transaction are kept; its own error reaches its caller."""

    def half(database: sqlite3.Connection) -> None:
        add(database, 50)
        raise KeyError("mine")

    go = together(writer)
    await asyncio.sleep(0)
    first, failed, broken, last = (
        asyncio.ensure_future(writer.run(write))
        for write in (
            lambda database: add(database, 1),
            half,
            lambda database: add(database, 1),
            lambda database: add(database, 2),
        )
    )
    await asyncio.sleep(0)
    go.set()
    answers = await gathered(first, failed, broken, last)

    assert [type(answer) for answer in answers] == [int, KeyError, ExplainedError, int]
    assert stored(path) == [1, 2]


async def test_a_failing_commit_fails_the_batch(writer: GroupCommit, path: Path):
    """Nobody in the transaction is told that it worked, and the thread goes on."""
    go = together(writer)
    await asyncio.sleep(0)
    calls = [
        asyncio.ensure_future(writer.run(write))
        for write in (lambda database: add(database, 1), orphan)
    ]
    await asyncio.sleep(0)
    go.set()
    answers = await gathered(*calls)

    assert [type(answer) for answer in answers] == [ExplainedError, ExplainedError]
    assert answers[0] is not answers[1]
    assert stored(path) == []
    assert await writer.run(lambda database: add(database, 3)) == 3
    assert (stored(path), writer.commits) == ([3], 1)


async def test_a_failure_that_ends_the_transaction(writer: GroupCommit, path: Path):
    """Some failures make SQLite take back everything; then everybody hears that very failure."""

    def collide(database: sqlite3.Connection) -> None:
        database.execute("INSERT OR ROLLBACK INTO parents VALUES (1)")

    await writer.run(lambda database: add(database, 1))
    go = together(writer)
    await asyncio.sleep(0)
    calls = [
        asyncio.ensure_future(writer.run(write))
        for write in (lambda database: add(database, 2), collide, lambda database: add(database, 3))
    ]
    await asyncio.sleep(0)
    go.set()
    answers = await gathered(*calls)

    assert [str(answer) for answer in answers] == ["UNIQUE constraint failed: parents.id"] * 3
    assert stored(path) == [1]


async def test_full_disk(writer: GroupCommit, path: Path):
    """When SQLite itself ends the transaction, all of it is refused; with room, writing goes on."""

    def fill(database: sqlite3.Connection) -> None:
        database.execute("CREATE TABLE filler AS SELECT zeroblob(1000000)")

    await writer.run(lambda database: add(database, 1))
    await writer.run(lambda database: database.execute("PRAGMA max_page_count = 10").fetchall())
    go = together(writer)
    await asyncio.sleep(0)
    calls = [
        asyncio.ensure_future(writer.run(write))
        for write in (lambda database: add(database, 2), fill)
    ]
    await asyncio.sleep(0)
    go.set()
    first, second = await gathered(*calls)

    assert isinstance(second, ExplainedError)
    assert stored(path) == ([1, 2] if first == 2 else [1])
    assert await writer.run(lambda database: add(database, 3)) == 3


async def test_writes_that_change_nothing_are_no_commits(writer: GroupCommit):
    """Looking is free."""
    await writer.run(lambda database: database.execute("SELECT 1").fetchall())

    assert writer.commits == 0


async def test_close_drains(path: Path):
    """What was accepted before close is written; what comes after is refused."""
    writer = GroupCommit(lambda: connect(path), ExplainedError)
    await writer.open()
    calls = [
        asyncio.ensure_future(writer.run(partial(add, number=number))) for number in range(100)
    ]
    await asyncio.sleep(0)

    await asyncio.gather(writer.close(), writer.close())

    assert await asyncio.gather(*calls) == stored(path) == list(range(100))
    with pytest.raises(StoreUnusableError):
        await writer.run(lambda database: add(database, 1))
    await writer.close()


async def test_failing_to_connect(path: Path):
    """The error of the connection reaches who opens; closing is harmless."""

    def fail() -> sqlite3.Connection:
        raise LookupError("no database")

    writer = GroupCommit(fail, ExplainedError)

    with pytest.raises(LookupError):
        await writer.open()
    with pytest.raises(StoreUnusableError):
        await writer.run(lambda database: add(database, 1))
    await writer.close()


async def test_close_before_open():
    """Closing what never ran is harmless."""
    await GroupCommit(lambda: connect(Path("unused")), ExplainedError).close()


async def test_a_caller_that_gives_up(writer: GroupCommit, path: Path):
    """A cancelled caller neither stops the thread nor takes back its write."""
    go = together(writer)
    await asyncio.sleep(0)
    call = asyncio.ensure_future(writer.run(lambda database: add(database, 1)))
    await asyncio.sleep(0)
    call.cancel()
    go.set()

    await writer.run(lambda database: add(database, 2))

    assert call.cancelled()
    assert stored(path) == [1, 2]


async def test_what_follows_a_commit(writer: GroupCommit, path: Path, caplog):
    """It is called once per write, in order, when the write is durable, also without a caller; a defect in one stops no other."""
    followed: list[tuple[int, bool]] = []

    def then(number: int) -> None:
        followed.append((number, number in stored(path)))
        if number == 2:
            raise ZeroDivisionError

    go = together(writer)
    await asyncio.sleep(0)
    calls = [
        asyncio.ensure_future(writer.run(partial(add, number=number), then))
        for number in (1, 2, 3, 3, 4)
    ]
    await asyncio.sleep(0)
    calls[0].cancel()
    go.set()
    answers = await gathered(*calls)

    assert [type(answer) for answer in answers] == [
        asyncio.CancelledError,
        int,
        int,
        ExplainedError,
        int,
    ]
    assert followed == [(1, True), (2, True), (3, True), (4, True)]
    assert [record.action for record in caplog.records] == ["commit_follow_up_failed"]


async def test_nothing_follows_a_commit_that_failed(writer: GroupCommit):
    """Nobody hears of a change that was taken back."""
    followed: list[None] = []

    with pytest.raises(ExplainedError):
        await writer.run(orphan, followed.append)

    assert not followed
