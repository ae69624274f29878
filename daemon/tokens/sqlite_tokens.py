"""The tokens in the database of the job store, and every statement that is about them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from daemon.errors import StoreUnusableError, TokenNotFoundError
from daemon.tokens.models import Role, Token

Row = tuple[Any, ...]
Write: TypeAlias = "Callable[[Callable[[sqlite3.Connection], Any]], Awaitable[Any]]"
Read: TypeAlias = "Callable[[str, Row], list[Row]]"

_COLUMNS = "id, sha256, role, projects, create_us, last_use_us, expire_us, revoke_us"
INSERT = f"INSERT INTO tokens ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - of names only
SELECT_ALL = f"SELECT {_COLUMNS} FROM tokens ORDER BY create_us, id"  # noqa: S608
SELECT = f"SELECT {_COLUMNS} FROM tokens WHERE id = ?"  # noqa: S608
REVOKE = "UPDATE tokens SET revoke_us = coalesce(revoke_us, ?) WHERE id = ?"
NOTE_USE = "UPDATE tokens SET last_use_us = max(coalesce(last_use_us, 0), ?) WHERE id = ?"


class SqliteTokens:
    """A ``TokenStore`` in the file of a ``SqliteJobStore``.

    Args:
        write: Runs a change in the writer's thread and returns its result after the commit.
        read: Runs a statement on the reader's connection.
    """

    def __init__(self, write: Write, read: Read) -> None:
        self._write = write
        self._read = read

    async def add(self, token: Token) -> None:
        """Keep a new token."""
        values = (
            token.id,
            token.sha256,
            token.role,
            json.dumps(token.projects),
            token.create_us,
            token.last_use_us,
            token.expire_us,
            token.revoke_us,
        )
        await self._write(lambda db: db.execute(INSERT, values).rowcount)

    async def revoke(self, token_id: str, revoke_us: int) -> Token:
        """End a token and return it.

        Raises:
            TokenNotFoundError: No such token.
        """

        def write(connection: sqlite3.Connection) -> list[Row]:
            connection.execute(REVOKE, (revoke_us, token_id))
            return connection.execute(SELECT, (token_id,)).fetchall()

        rows = await self._write(write)
        if not rows:
            raise TokenNotFoundError(f"no token has the id {token_id!r}")
        return _token(rows[0])

    async def note_use(self, token_id: str, use_us: int) -> None:
        """Keep the moment of a use, unless a later one is known."""
        await self._write(lambda db: db.execute(NOTE_USE, (use_us, token_id)).rowcount)

    # Last, because its name hides the built-in one.
    async def all(self) -> list[Token]:
        """Return every token that was ever made, the oldest first."""
        return [_token(row) for row in self._read(SELECT_ALL, ())]


def _token(row: Row) -> Token:
    token_id, sha256, role, projects, create_us, last_use_us, expire_us, revoke_us = row
    try:
        return Token(
            id=token_id,
            sha256=sha256,
            role=Role(role),
            projects=tuple(json.loads(projects)),
            create_us=create_us,
            last_use_us=last_use_us,
            expire_us=expire_us,
            revoke_us=revoke_us,
        )
    except ValueError as exc:
        raise StoreUnusableError(f"the stored token {token_id} is damaged: {exc}") from exc
