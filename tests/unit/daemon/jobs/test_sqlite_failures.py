"""Each kind of failure of SQLite is one line that says what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from daemon.jobs.sqlite_failures import store_unusable

PATH = Path("/state/jobs.db")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "make room"),
        (sqlite3.SQLITE_IOERR | (3 << 8), "free space"),
        (sqlite3.SQLITE_CORRUPT, "restore it from a backup"),
        (sqlite3.SQLITE_NOTADB, "is no database"),
        (sqlite3.SQLITE_BUSY, "another program"),
        (sqlite3.SQLITE_READONLY | (1 << 8), "owner and mode"),
        (sqlite3.SQLITE_CANTOPEN, "folder exists"),
        (sqlite3.SQLITE_TOOBIG, "an operation failed"),
    ],
)
def test_advice(code: int, words: str):
    """The text names the file, the advice and what SQLite said."""
    failure = sqlite3.OperationalError("as SQLite says")
    failure.sqlite_errorcode = code

    text = str(store_unusable(PATH, failure))

    assert str(PATH) in text
    assert words in text
    assert "as SQLite says" in text


def test_without_a_code():
    """Errors of the module itself carry no code and are passed on in words."""
    assert "closed" in str(store_unusable(PATH, sqlite3.ProgrammingError("closed database")))
