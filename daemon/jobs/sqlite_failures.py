"""Turns what SQLite reports into one line that says what failed and what to do. Pure, so that it is table-tested.

SQLite tells kinds of failure apart by result codes only; its texts ("database or disk is full", "file is not a
database") are for programmers. The primary code is the low byte of the extended one.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from daemon.errors import StoreUnavailableError, StoreUnusableError

_PRIMARY_CODE = 0xFF

_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""Failures of the moment: the database itself is sound, so a client may repeat the call."""

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program holds it; stop that program",
    sqlite3.SQLITE_LOCKED: "another program holds it; stop that program",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that its folder exists and may be written",
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup or use another --state-dir",
    sqlite3.SQLITE_FORMAT: "is damaged; restore it from a backup or use another --state-dir",
    sqlite3.SQLITE_FULL: "the disk is full; make room and repeat",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk and its free space",
    sqlite3.SQLITE_NOTADB: "is no database or is damaged; move it away or use another --state-dir",
    sqlite3.SQLITE_PERM: "may not be written; check its owner and mode",
    sqlite3.SQLITE_READONLY: "may not be written; check its owner and mode",
}


def store_unusable(path: Path, failure: sqlite3.Error) -> StoreUnusableError:
    """Return the error to raise for a failure of SQLite on the database at ``path``."""
    # Errors that the sqlite3 module itself raises (a closed connection) carry no code.
    code: int = getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    advice = _ADVICE.get(code & _PRIMARY_CODE, "an operation failed")
    kind = StoreUnavailableError if code & _PRIMARY_CODE in _PASSING else StoreUnusableError
    return kind(f"job database {path}: {advice} ({failure})")
