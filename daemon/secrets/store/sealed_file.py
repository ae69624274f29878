"""The file format: a header in clear, a check value and one Fernet token.

```
{"format": "runner-secrets", "version": 1,
 "kdf": {"name": "scrypt", "n": 131072, "r": 8, "p": 1, "salt": "<16 bytes, base64>"},
 "check": "<16 bytes, base64>",
 "token": "gAAAA…"}
```

Fernet has no associated data, hence the digest of the header goes into the key: a changed cost, salt or version cannot decrypt.
The check value tells a wrong password from a damaged file. Everything is bounded before any key is derived from it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from daemon.errors import DamagedSecretStoreError
from daemon.secrets.store.strict_json import parse_object

FORMAT = "runner-secrets"
VERSION = 1
MAX_FILE_BYTES = 8 << 20
SALT_BYTES = 16
CHECK_BYTES = 16
SCRYPT_R = 8
MIN_COST, MAX_COST = 14, 20
"""Powers of two of scrypt's n: 16 MiB and 24 ms, 1 GiB and 2.4 s."""
DEFAULT_COST = 17
"""128 MiB and 0.26 s; the floor of OWASP's password storage sheet."""
MAX_P = 4


@dataclass(frozen=True, slots=True)
class Header:
    """The part of the file that says how the key is made of the password."""

    salt: bytes
    n: int
    p: int = 1

    @property
    def cost(self) -> int:
        """Return n as a power of two."""
        return self.n.bit_length() - 1

    def to_json(self) -> dict[str, Any]:
        """Return the members of the file that the key is bound to."""
        salt = base64.b64encode(self.salt).decode()
        kdf = {"name": "scrypt", "n": self.n, "r": SCRYPT_R, "p": self.p, "salt": salt}
        return {"format": FORMAT, "version": VERSION, "kdf": kdf}

    def digest(self) -> bytes:
        """Return the SHA-256 of the canonical text of the header."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A store as it lies on disk, well-formed and within bounds."""

    header: Header
    check: bytes
    token: bytes

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        document = self.header.to_json()
        document["check"] = base64.b64encode(self.check).decode()
        document["token"] = self.token.decode("ascii")
        return json.dumps(document, indent=1).encode() + b"\n"


def parse_sealed(data: bytes, where: str) -> SealedFile:
    """Return the store that a file holds; called before any password is asked for.

    Args:
        data: The whole file.
        where: Its name, for the message.

    Raises:
        DamagedSecretStoreError: It is no store, was written by a newer runner, or asks for a key that costs too much.
    """
    if len(data) > MAX_FILE_BYTES:
        raise DamagedSecretStoreError(f"{where} is larger than a store can be (8 MiB)")
    try:
        document = parse_object(data)
    except ValueError as error:
        raise DamagedSecretStoreError(
            f"{where} is damaged: {error}; "
            "restore a backup, or start anew with `runner secrets init --force`"
        ) from None
    if document.get("format") != FORMAT:
        raise DamagedSecretStoreError(f"{where} is damaged, or no store of runner secrets")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise DamagedSecretStoreError(f"{where} is damaged: its version is no whole number")
    if version > VERSION:
        raise DamagedSecretStoreError(
            f"{where} was written by a newer runner (format {version}, this one reads {VERSION}); "
            "update runner"
        )
    try:
        return _sealed(document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = error.args[0] if type(error) is ValueError else "a member is missing or malformed"
        raise DamagedSecretStoreError(f"{where} is damaged: {reason}") from None


def _sealed(document: dict[str, Any]) -> SealedFile:
    kdf = document["kdf"]
    if kdf["name"] != "scrypt":
        raise ValueError("it names a key derivation that this runner does not know")
    n, r, p = (kdf[name] for name in ("n", "r", "p"))
    if not all(type(number) is int for number in (n, r, p)):
        raise ValueError("the cost of the key derivation is no whole number")
    if n not in [1 << cost for cost in range(MIN_COST, MAX_COST + 1)]:
        raise ValueError("the cost of the key derivation is out of bounds (2^14 to 2^20)")
    if r != SCRYPT_R or not 1 <= p <= MAX_P:
        raise ValueError("the key derivation is out of bounds (r = 8, p = 1 to 4)")
    salt = base64.b64decode(kdf["salt"], validate=True)
    check = base64.b64decode(document["check"], validate=True)
    if len(salt) != SALT_BYTES or len(check) != CHECK_BYTES:
        raise ValueError("its salt or check value has the wrong length")
    return SealedFile(Header(salt, n, p), check, document["token"].encode("ascii"))
