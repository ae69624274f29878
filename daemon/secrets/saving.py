"""Keeps gathered values where the next start finds them: in the secret store or in the keyring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent_runner.secret_refs import LOCAL_PATH
from daemon.errors import KeyringUnusableError
from daemon.secrets.values import GatheredSecret, SecretOrigin

if TYPE_CHECKING:
    from daemon.secrets.store.secret_store import SecretStore

KEYRING_SERVICE = "runner"
_UNSAVED = (SecretOrigin.ENVIRONMENT, SecretOrigin.TYPED)


def save_in_store(found: Mapping[str, GatheredSecret], store: SecretStore) -> list[str]:
    """Put what was typed or in the environment into the store; return the names.

    Raises:
        SecretStoreError, BusyError: The store cannot be written; nothing was saved.
    """
    from daemon.secrets.store.names import parse_name  # noqa: PLC0415 - by choice only

    values = {
        name: secret.value.reveal().encode()
        for name, secret in found.items()
        if secret.origin in _UNSAVED
    }
    if values:
        store.put({parse_name(LOCAL_PATH, name): value for name, value in values.items()})
    return list(values)


def save_in_keyring(found: Mapping[str, GatheredSecret]) -> tuple[list[str], str]:
    """Put what was typed or in the environment into the keyring.

    Returns:
        The names that it keeps now, and why it keeps no more; empty if it keeps all.
    """
    from daemon.secrets import os_keyring  # noqa: PLC0415 - by choice only

    saved: list[str] = []
    for name, secret in found.items():
        if secret.origin in _UNSAVED:
            try:
                os_keyring.save(KEYRING_SERVICE, name, secret.value.reveal())
            except KeyringUnusableError as error:
                return saved, str(error)
            saved.append(name)
    return saved, ""
