"""Every token of a server, by the hash of its secret, and the streams that were opened with each.

It is read from the store once, at the start, and changed with it: no other process writes there. So to know a token costs
a call one hash and one look into a dictionary, whatever the token, and the store is never asked. That the look takes
its time by the *hash* of what a caller sent tells it nothing: it cannot choose the hash.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from daemon.clock import Clock
from daemon.errors import TokenNotFoundError, TokenRejectedError
from daemon.server.caller import LOCAL, Caller, caller_of
from daemon.server.completions import Completions
from daemon.server.open_stream import OpenStream
from daemon.tokens.models import Role, Token
from daemon.tokens.secret_text import new_secret, new_token_id, secret_sha256
from daemon.tokens.store import TokenStore

USE_INTERVAL_US = 60_000_000
"""How often the store learns that a token is in use."""
REJECTED = (
    "the bearer token is not one of this server's, or is one that was revoked or has expired: "
    "read the token file again, or ask for a new one"
)


class _Known:
    __slots__ = ("caller", "noted_us", "streams", "timer", "token", "use_us")

    def __init__(self, token: Token, use_us: int) -> None:
        self.token = token
        self.caller = caller_of(token)
        self.use_us = use_us
        """When it was last used; 0 if never."""
        self.noted_us = use_us
        """Which use the store knows of."""
        self.streams: set[OpenStream] = set()
        self.timer: asyncio.TimerHandle | None = None


class TokenBook:
    """One per server; used on its event loop."""

    def __init__(self, local_token: str, clock: Clock, completions: Completions) -> None:
        if not local_token:
            raise RuntimeError("a server without a token of its own would let everybody in")
        self._local_sha256 = secret_sha256(local_token)
        self._clock = clock
        self._completions = completions
        self._store: TokenStore | None = None
        self._by_sha256: dict[str, _Known] = {}
        self._by_id: dict[str, _Known] = {}
        self.store_reads = 0
        """A measure of cost."""

    async def load(self, store: TokenStore) -> None:
        """Read the tokens; called once, before the first call comes."""
        self._store = store
        self.store_reads += 1
        for token in await store.all():
            self._learn(token)

    def admit(self, secret: str) -> Caller:
        """Return who has a secret; called per call.

        Raises:
            TokenRejectedError: Nobody whose token counts now. It does not say which of the reasons it is.
        """
        sha256 = secret_sha256(secret)
        if hmac.compare_digest(sha256, self._local_sha256):
            return LOCAL
        known = self._by_sha256.get(sha256)
        now_us = self._clock.now_us()
        if known is None or not known.token.is_good(now_us):
            raise TokenRejectedError(REJECTED)
        self._note_use(known, now_us)
        return known.caller

    async def create(
        self, role: Role, projects: Sequence[str], expire_us: int | None
    ) -> tuple[Token, str]:
        """Make a token; return it and its secret, which is kept nowhere."""
        secret = new_secret()
        token = Token(
            id=new_token_id(),
            sha256=secret_sha256(secret),
            role=role,
            projects=tuple(sorted(set(projects))),
            create_us=self._clock.now_us(),
            expire_us=expire_us,
        )
        await self._opened_store().add(token)
        self._learn(token)
        return token, secret

    def tokens(self) -> list[Token]:
        """Return all tokens, the newest first; of one with an open stream this is the moment of its last use."""
        now_us = self._clock.now_us()
        return [
            known.token._replace(last_use_us=now_us if known.streams else known.use_us or None)
            for known in reversed(self._by_id.values())
        ]

    async def revoke(self, token_id: str) -> Token:
        """End a token, and the streams that were opened with it, and return it. Repeating it is harmless.

        Raises:
            TokenNotFoundError: No such token.
        """
        known = self._by_id.get(token_id)
        if known is None:
            raise TokenNotFoundError(f"no token has the id {token_id!r}")
        known.token = await self._opened_store().revoke(token_id, self._clock.now_us())
        _end_streams(known)
        return known.token

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[OpenStream]:
        """Have a stream ended when the token of its caller does; called per stream, from the task that serves it."""
        known = self._by_id[caller.token_id]
        stream = OpenStream()
        known.streams.add(stream)
        self._watch_expiry(known)
        try:
            # It may have ended since the call came in.
            if not known.token.is_good(self._clock.now_us()):
                stream.end(TokenRejectedError(REJECTED))
            yield stream
        finally:
            known.streams.discard(stream)
            if not known.streams and known.timer is not None:
                known.timer.cancel()
                known.timer = None

    def _learn(self, token: Token) -> None:
        use_us = token.last_use_us or 0
        known = _Known(token, use_us)
        self._by_sha256[token.sha256] = self._by_id[token.id] = known

    def _opened_store(self) -> TokenStore:
        if self._store is None:
            raise RuntimeError("the tokens were not loaded")
        return self._store

    def _note_use(self, known: _Known, now_us: int) -> None:
        known.use_us = now_us
        if now_us - known.noted_us >= USE_INTERVAL_US:
            known.noted_us = now_us
            self._completions.start(self._opened_store().note_use(known.token.id, now_us))

    def _watch_expiry(self, known: _Known) -> None:
        expire_us = known.token.expire_us
        if expire_us is None or known.timer is not None:
            return
        left_s = max(0, expire_us - self._clock.now_us()) / 1_000_000
        known.timer = asyncio.get_running_loop().call_later(left_s, self._expire, known)

    def _expire(self, known: _Known) -> None:
        known.timer = None
        if known.token.is_good(self._clock.now_us()):
            self._watch_expiry(known)  # the wall clock was set back
        else:
            _end_streams(known)


def _end_streams(known: _Known) -> None:
    for stream in [*known.streams]:
        stream.end(TokenRejectedError(REJECTED))
