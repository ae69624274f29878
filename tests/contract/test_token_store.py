"""What every TokenStore does."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.errors import TokenNotFoundError
from daemon.jobs.sqlite_store import SqliteJobStore
from daemon.jobs.store import JobStore
from daemon.tokens.models import Role, Token

TOKEN = Token(
    id="tok-1",
    sha256="0" * 64,
    role=Role.CLIENT,
    projects=("one", "two"),
    create_us=100,
    expire_us=900,
)
ADMIN = Token(id="tok-2", sha256="1" * 64, role=Role.ADMIN, projects=(), create_us=200)


async def test_keeps_tokens_in_the_order_of_their_making(store: JobStore):
    """Every field comes back as it was."""
    assert await store.tokens.all() == []

    await store.tokens.add(TOKEN)
    await store.tokens.add(ADMIN)

    assert await store.tokens.all() == [TOKEN, ADMIN]


async def test_a_token_is_revoked_once(store: JobStore):
    """A second revocation changes nothing; the others are left alone."""
    await store.tokens.add(TOKEN)
    await store.tokens.add(ADMIN)

    revoked = await store.tokens.revoke(TOKEN.id, 300)

    assert revoked == TOKEN._replace(revoke_us=300)
    assert await store.tokens.revoke(TOKEN.id, 400) == revoked
    assert await store.tokens.all() == [revoked, ADMIN]


async def test_an_unknown_token_cannot_be_revoked(store: JobStore):
    """The id is named, because it is no secret."""
    with pytest.raises(TokenNotFoundError, match="tok-9"):
        await store.tokens.revoke("tok-9", 300)


async def test_the_latest_use_counts(store: JobStore):
    """A use that is told late does not hide a later one; an unknown token is nobody's concern."""
    await store.tokens.add(TOKEN)

    await store.tokens.note_use(TOKEN.id, 500)
    await store.tokens.note_use(TOKEN.id, 400)
    await store.tokens.note_use("tok-9", 400)

    assert await store.tokens.all() == [TOKEN._replace(last_use_us=500)]


async def test_tokens_outlive_the_process(tmp_path: Path):
    """They are in the database of the jobs."""
    for expected in ([], [TOKEN]):
        store = SqliteJobStore(tmp_path / "jobs.db", FixedClock())
        await store.open()
        assert await store.tokens.all() == expected
        if not expected:
            await store.tokens.add(TOKEN)
        await store.close()
