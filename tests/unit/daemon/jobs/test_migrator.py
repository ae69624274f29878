"""Databases are brought forward step by step, wholly or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.errors import StoreUnusableError
from daemon.jobs import migrator
from daemon.jobs.migrator import APPLICATION_ID, Migration, check_schema, load_migrations, migrate

FIRST = Migration(version=1, sql="CREATE TABLE a (x);")
SECOND = Migration(version=2, sql="CREATE TABLE b (x); INSERT INTO b VALUES (1);")
BROKEN = Migration(version=2, sql="CREATE TABLE b (x); INSERT INTO nowhere VALUES (1);")
PATH = Path("jobs.db")


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        yield database


def tables(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute("SELECT name FROM sqlite_master ORDER BY name")]


def test_new_database(database: sqlite3.Connection):
    """An empty database gets every step and our mark."""
    assert check_schema(database, PATH, (FIRST, SECOND)) == 0
    migrate(database, 0, (FIRST, SECOND))

    assert check_schema(database, PATH, (FIRST, SECOND)) == 2
    assert tables(database) == ["a", "b"]
    assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_older_database_keeps_its_rows(database: sqlite3.Connection):
    """Only the missing steps are applied."""
    migrate(database, 0, (FIRST,))
    database.execute("INSERT INTO a VALUES (5)")

    migrate(database, check_schema(database, PATH, (FIRST, SECOND)), (FIRST, SECOND))

    assert database.execute("SELECT x FROM a").fetchall() == [(5,)]
    assert tables(database) == ["a", "b"]


def test_broken_step_leaves_the_one_before(database: sqlite3.Connection):
    """A step that fails leaves nothing of itself, and can be repeated."""
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, 0, (FIRST, BROKEN))

    assert not database.in_transaction
    assert check_schema(database, PATH, (FIRST, BROKEN)) == 1
    assert tables(database) == ["a"]
    migrate(database, 1, (FIRST, SECOND))
    assert tables(database) == ["a", "b"]


def test_newer_database(database: sqlite3.Connection):
    """Both versions are named."""
    migrate(database, 0, (FIRST, SECOND))

    with pytest.raises(StoreUnusableError, match=r"schema 2, this one knows 1"):
        check_schema(database, PATH, (FIRST,))


def test_shipped_migrations():
    """The package's own files are numbered from one without gaps."""
    migrations = load_migrations()

    assert [migration.version for migration in migrations] == list(range(1, len(migrations) + 1))
    assert migrator.MIGRATIONS_DIR.is_dir()


def test_gap_is_a_defect(tmp_path: Path):
    """A missing number is found before a database is touched."""
    for name in ("0001_first.sql", "0003_third.sql", "README"):
        (tmp_path / name).write_text("")

    with pytest.raises(RuntimeError, match="without gaps"):
        load_migrations(tmp_path)
