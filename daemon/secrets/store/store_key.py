"""The key of a store: made of the password once per run, and handed to another process in place of the password.

```
ikm   = scrypt(NFC(password), salt)
check = HKDF(ikm, "runner-secrets/v1/check" + H)      H: the digest of the header
key   = HKDF(ikm, "runner-secrets/v1/data" + H)
```
"""

from __future__ import annotations

import base64
import hmac
import unicodedata
from typing import NoReturn, Self

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from daemon.errors import (
    DamagedSecretStoreError,
    SecretKeyStaleError,
    SecretStoreError,
    UsageError,
    WrongPasswordError,
)
from daemon.secrets.store.sealed_file import CHECK_BYTES, SCRYPT_R, Header, SealedFile
from daemon.secrets.values import SecretValue

_KEY_BYTES = 32
_DIGEST_BYTES = 32


class StoreKey:
    """What opens one store until its password changes. As secret as the password; never shows itself."""

    __slots__ = ("_key", "header_digest")

    def __init__(self, key: bytes, header_digest: bytes) -> None:
        self._key = key
        self.header_digest = header_digest

    def __repr__(self) -> str:
        return "StoreKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("the key of a store is not to be serialised; use to_bytes for a pipe")

    def to_bytes(self) -> bytes:
        """Return 64 bytes for a pipe to a process that is to open the store too; never for a file."""
        return self._key + self.header_digest

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the key that another process has handed over.

        Raises:
            ValueError: These are not the bytes of a key.
        """
        if len(data) != _KEY_BYTES + _DIGEST_BYTES:
            raise ValueError("not the key of a store")
        return cls(data[:_KEY_BYTES], data[_KEY_BYTES:])

    def fits(self, sealed: SealedFile) -> bool:
        """Tell whether the key was made for the header that the file has."""
        return hmac.compare_digest(self.header_digest, sealed.header.digest())

    def decrypt(self, sealed: SealedFile) -> bytes:
        """Return what a file holds.

        Raises:
            SecretKeyStaleError: The password was changed since the key was made.
            DamagedSecretStoreError: The file is not what was written.
        """
        if not self.fits(sealed):
            raise SecretKeyStaleError(
                "the password of the secret store was changed; unlock the store again"
            )
        try:
            return self._fernet().decrypt(sealed.token)
        except InvalidToken:
            raise DamagedSecretStoreError(
                "the password is right, but the file is damaged or was changed; restore a backup"
            ) from None

    def encrypt(self, text: bytes) -> bytes:
        """Return the token of a text."""
        return self._fernet().encrypt(text)

    def _fernet(self) -> Fernet:
        return Fernet(base64.urlsafe_b64encode(self._key))


def make_key(header: Header, password: SecretValue) -> tuple[StoreKey, bytes]:
    """Return the key and the check value of a password. Takes 0.26 s and 128 MiB by default.

    Raises:
        UsageError: The password is not valid Unicode.
        SecretStoreError: There is not enough memory.
    """
    try:
        text = unicodedata.normalize("NFC", password.reveal()).encode()
    except UnicodeEncodeError:
        raise UsageError("the password is not valid UTF-8") from None
    material = derive(text, header.salt, header.n, header.p)
    digest = header.digest()
    key = _expand(material, b"runner-secrets/v1/data" + digest, _KEY_BYTES)
    check = _expand(material, b"runner-secrets/v1/check" + digest, CHECK_BYTES)
    return StoreKey(key, digest), check


def unlock(sealed: SealedFile, password: SecretValue, where: str) -> StoreKey:
    """Return the key of a file.

    Raises:
        WrongPasswordError: The password does not open it, or its header was changed.
        UsageError, SecretStoreError: As ``make_key``.
    """
    key, check = make_key(sealed.header, password)
    if not hmac.compare_digest(check, sealed.check):
        raise WrongPasswordError(f"wrong password for {where} (or the file's header was changed)")
    return key


def derive(password: bytes, salt: bytes, n: int, p: int) -> bytes:
    """Return the 32 bytes that scrypt makes of a password.

    Raises:
        SecretStoreError: There is not enough memory.
    """
    try:
        return Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=SCRYPT_R, p=p).derive(password)
    except MemoryError:
        needed = 128 * n * SCRYPT_R >> 20
        raise SecretStoreError(
            f"opening the secret store takes {needed:,} MiB of memory, which this machine refuses"
        ) from None


def _expand(material: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(material)
