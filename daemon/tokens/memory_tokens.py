"""The token store that forgets."""

from __future__ import annotations

from daemon.errors import TokenNotFoundError
from daemon.tokens.models import Token


class MemoryTokens:
    """A ``TokenStore`` whose tokens end with the process."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    async def add(self, token: Token) -> None:
        """Keep a new token."""
        self._tokens[token.id] = token

    async def revoke(self, token_id: str, revoke_us: int) -> Token:
        """End a token and return it.

        Raises:
            TokenNotFoundError: No such token.
        """
        token = self._tokens.get(token_id)
        if token is None:
            raise TokenNotFoundError(f"no token has the id {token_id!r}")
        if token.revoke_us is None:
            token = self._tokens[token_id] = token._replace(revoke_us=revoke_us)
        return token

    async def note_use(self, token_id: str, use_us: int) -> None:
        """Keep the moment of a use, unless a later one is known."""
        token = self._tokens.get(token_id)
        if token is not None and use_us > (token.last_use_us or 0):
            self._tokens[token_id] = token._replace(last_use_us=use_us)

    # Last, because its name hides the built-in one.
    async def all(self) -> list[Token]:
        """Return every token that was ever made, the oldest first."""
        return [*self._tokens.values()]
