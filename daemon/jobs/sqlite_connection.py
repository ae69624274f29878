"""Opens the database of the SQLite store for its one writer."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from daemon.errors import StoreUnusableError
from daemon.jobs import migrator
from daemon.jobs.sqlite_failures import store_unusable

BUSY_TIMEOUT_MS = 5000
WAL_LIMIT_BYTES = 64 << 20
MIN_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Return a connection in ``autocommit`` to a file of the newest schema, which is made if it is not there; called once per start.

    Raises:
        StoreUnusableError: Damaged, not writable, foreign, or written by a newer version.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        raise StoreUnusableError(
            f"SQLite {sqlite3.sqlite_version} is too old: runner needs 3.37 or newer"
        )
    _create_private(path)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        migrations = migrator.load_migrations()
        version = migrator.check_schema(connection, path, migrations)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        migrator.migrate(connection, version, migrations)
    except sqlite3.Error as exc:
        connection.close()
        raise store_unusable(path, exc) from exc
    except StoreUnusableError:
        connection.close()
        raise
    return connection


def _create_private(path: Path) -> None:
    """Make the file, readable by its owner only; SQLite gives its companions the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise StoreUnusableError(
            f"job database {path} cannot be opened for writing: {exc.strerror}"
        ) from exc
