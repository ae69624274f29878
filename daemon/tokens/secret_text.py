"""The secret of a token: made of chance, and recognised by its SHA-256, which is all that a server keeps.

Slow and salted hashes protect what people choose: a thief of the database tries likely passwords, and each trial
is to be dear. Nobody can try 2**256 values, however quick a trial is, and no two tokens are alike, so a salt
would tell nothing apart. A quick hash it must be, because each call pays for it: 1 microsecond, where scrypt takes 260 ms.
"""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "rnr_"
"""Lets people and scanners of leaked secrets see what it is."""
_BYTES = 32
_ID_BYTES = 5
MAX_CHARS = 512
"""Of what is hashed; no token is so long."""


def new_secret() -> str:
    """Return a secret of 256 bits that nobody has; called per token."""
    return PREFIX + secrets.token_urlsafe(_BYTES)


def new_token_id() -> str:
    """Return a short name for a token; is no secret and says nothing of it."""
    return f"tok-{secrets.token_hex(_ID_BYTES)}"


def secret_sha256(secret: str) -> str:
    """Return what is stored and compared; called per call. Cuts what is too long to be a token."""
    return hashlib.sha256(secret[:MAX_CHARS].encode(errors="replace")).hexdigest()
