"""The TokenStore port: where the tokens of a server outlive it. Backends pass ``tests/contract/test_token_store.py``."""

from __future__ import annotations

from typing import Protocol

from daemon.tokens.models import Token


class TokenStore(Protocol):
    """Keeps tokens. Part of a ``JobStore``, and usable while that is open. Each change is durable before it returns."""

    async def add(self, token: Token) -> None:
        """Keep a new token; called per ``runner tokens create``."""
        ...

    async def all(self) -> list[Token]:
        """Return every token that was ever made, the oldest first; called once per start of a server."""
        ...

    async def revoke(self, token_id: str, revoke_us: int) -> Token:
        """End a token and return it; one that was revoked keeps its moment.

        Raises:
            TokenNotFoundError: No such token.
        """
        ...

    async def note_use(self, token_id: str, use_us: int) -> None:
        """Keep the moment of a use, unless a later one is known; called once a minute per token that is used."""
        ...
