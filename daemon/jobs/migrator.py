"""Brings a database to the schema of this version: numbered SQL files, each applied in one transaction.

``PRAGMA user_version`` says which files were applied, ``PRAGMA application_id`` that the database is ours. Both
are read before anything is written, so that a foreign or newer database is refused untouched.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import NamedTuple

from daemon.errors import StoreUnusableError

APPLICATION_ID = 0x52554E52
"""``RUNR`` in ASCII; file(1) shows it."""

MIGRATIONS_DIR = Path(__file__).with_name("migrations")

_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


class Migration(NamedTuple):
    """One step of the schema."""

    version: int
    sql: str


def load_migrations(folder: Path = MIGRATIONS_DIR) -> tuple[Migration, ...]:
    """Return the migrations of a folder in their order.

    Raises:
        RuntimeError: The numbers do not run 1, 2, 3 …, which is a defect of the package.
    """
    migrations = tuple(
        Migration(version=int(match[1]), sql=file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir())
        if (match := _FILE_NAME.fullmatch(file.name))
    )
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise RuntimeError(f"the migrations in {folder} are not numbered from 1 without gaps")
    return migrations


def check_schema(
    connection: sqlite3.Connection, path: Path, migrations: tuple[Migration, ...]
) -> int:
    """Return the schema version of a database, 0 for an empty one. Writes nothing.

    Raises:
        StoreUnusableError: It belongs to another program or to a newer runner.
        sqlite3.Error: It is no database or is damaged.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != APPLICATION_ID:
        if tables or version or application_id:
            raise StoreUnusableError(
                f"job database {path} belongs to another program: "
                "move it away or use another --state-dir"
            )
        return 0
    if version > len(migrations):
        raise StoreUnusableError(
            f"job database {path} was written by a newer runner (schema {version}, "
            f"this one knows {len(migrations)}): upgrade runner or use another --state-dir"
        )
    return version


def migrate(
    connection: sqlite3.Connection, version: int, migrations: tuple[Migration, ...]
) -> None:
    """Apply what comes after ``version``; each step wholly or not at all.

    Raises:
        sqlite3.Error: A step failed; the steps before it stay applied.
    """
    for migration in migrations[version:]:
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{migration.sql}\n"
                f"PRAGMA application_id = {APPLICATION_ID};\n"
                f"PRAGMA user_version = {migration.version};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
