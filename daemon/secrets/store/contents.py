"""What the encrypted part holds: a generation that counts the writes, and the values by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.errors import DamagedSecretStoreError, UsageError
from daemon.secrets.store.names import SecretName, parse_name
from daemon.secrets.store.stored_secret import StoredSecret, from_json
from daemon.secrets.store.strict_json import parse_object

PADDING_BYTES = 1024
"""The size of the file tells the size of the values only in steps of this."""


@dataclass(slots=True)
class Contents:
    """The values of a store in memory; changed only by ``SecretStore``, between reading and writing it."""

    generation: int = 0
    secrets: dict[SecretName, StoredSecret] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the text to encrypt, padded with spaces."""
        tree: dict[str, dict[str, dict[str, str]]] = {}
        for name, secret in sorted(self.secrets.items()):
            tree.setdefault(name.path, {})[name.key] = secret.to_json()
        document = {"generation": self.generation, "secrets": tree}
        text = json.dumps(document, separators=(",", ":")).encode()
        return text + b" " * (-len(text) % PADDING_BYTES)


def parse_contents(text: bytes) -> Contents:
    """Return the contents of a decrypted text.

    Raises:
        DamagedSecretStoreError: The text is none of ours; says nothing of what it holds.
    """
    try:
        document = parse_object(text)
        return Contents(_generation(document.get("generation")), _secrets(document.get("secrets")))
    except (ValueError, TypeError, AttributeError, UsageError):
        raise DamagedSecretStoreError(
            "the password is right, but what the store holds is not what a runner writes"
        ) from None


def _generation(number: Any) -> int:
    # An exact type, because true is an int too.
    if type(number) is not int or number < 0:
        raise ValueError
    return number


def _secrets(tree: Any) -> dict[SecretName, StoredSecret]:
    return {
        parse_name(path, key): from_json(entry)
        for path, keys in _items(tree)
        for key, entry in _items(keys)
    }


def _items(tree: Any) -> list[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        raise TypeError
    return list(tree.items())
