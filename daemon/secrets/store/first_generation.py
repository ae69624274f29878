"""Reads the store of the first generation: ``secrets.enc``, a Fernet token over ``{path: {key: value}}``, and ``.salt`` beside it.

One of its two programs wrote the token as text, the other as the bytes that the text stands for. Only read here, never written:
its ``.salt`` was made anew whenever it was missing, which lost everything.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from daemon.errors import (
    DamagedSecretStoreError,
    NoSecretStoreError,
    SecretStoreError,
    WrongPasswordError,
)
from daemon.secrets.store.names import SecretName
from daemon.secrets.store.plain_file import parse_tree
from daemon.secrets.store.sealed_file import MAX_FILE_BYTES
from daemon.secrets.store.store_key import derive
from daemon.secrets.store.strict_json import parse_object
from daemon.secrets.values import SecretValue

_N, _P = 1 << 18, 1
_RAW_TOKEN_START = 0x80
"""The version byte of a Fernet token, which no text of one begins with."""


class FirstGenerationStore:
    """The two files, read before a password is asked for.

    Raises:
        NoSecretStoreError: The folder holds no such store.
        DamagedSecretStoreError: Its salt is missing.
        SecretStoreError: A file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        token = _read(folder / "secrets.enc")
        if token is None:
            raise NoSecretStoreError(f"{folder} holds no store of the first generation")
        salt = _read(folder / ".salt")
        if not salt:
            raise DamagedSecretStoreError(
                f"salt missing: without {folder / '.salt'} nothing can open {folder / 'secrets.enc'}; "
                "restore it from a backup"
            )
        raw = token[:1] == bytes([_RAW_TOKEN_START])
        self._token = base64.urlsafe_b64encode(token) if raw else token
        self._salt = salt

    def unlock(self, password: SecretValue) -> dict[SecretName, bytes]:
        """Return every value by name. Takes half a second and 256 MiB.

        Raises:
            WrongPasswordError: The password does not open it, or the file is damaged; it cannot tell which.
            DamagedSecretStoreError: It holds something else than values by path and key.
            UsageError: Names in it do not follow the grammar; lists them.
        """
        text = password.reveal().encode("utf-8", "replace")
        key = base64.urlsafe_b64encode(derive(text, self._salt, _N, _P))
        file = self._folder / "secrets.enc"
        try:
            tree = Fernet(key).decrypt(self._token)
        except InvalidToken:
            raise WrongPasswordError(
                f"wrong password for {file} (or the file is damaged)"
            ) from None
        try:
            return parse_tree(parse_object(tree))
        except ValueError as error:
            raise DamagedSecretStoreError(f"{file} is damaged: {error}") from None


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SecretStoreError(f"cannot read {path}: {error.strerror}") from error
