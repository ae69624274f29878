"""Unlocks the secret store with whatever password can be found, asking a person only where there is one."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.errors import WrongPasswordError
from daemon.secrets.store.secret_store import SecretStore, read_sealed
from daemon.secrets.store.store_folder import StoreFolder
from daemon.secrets.store_password import (
    Ask,
    FoundPassword,
    PasswordOptions,
    Say,
    ask_password,
    find_password,
    needed,
)

MAX_TRIES = 3
"""How often a password is asked for. One that was not typed is not tried again."""


def unlock_store(
    folder: StoreFolder,
    env: Mapping[str, str],
    options: PasswordOptions,
    say: Say,
    ask: Ask | None = None,
) -> tuple[SecretStore, FoundPassword]:
    """Return the unlocked store, and the password that did it.

    Called once per run: a second derivation of the key would cost a quarter of a second.

    Args:
        folder: Where the store lies.
        env: The caller's environment.
        options: Which sources were chosen.
        say: Prints one line for the person.
        ask: The prompt; None where nobody can be asked.

    Raises:
        NoSecretStoreError, DamagedSecretStoreError: Before any password is looked for.
        SecretNeededError: No source has a password.
        WrongPasswordError: It does not open the store.
        UsageError, Interrupted: As ``find_password``.
    """
    read_sealed(folder)
    found = find_password(env, folder.root, options, say, ask)
    if found is not None and found.source == "keyring":
        try:
            return SecretStore.open(folder, found.value), found
        except WrongPasswordError:
            say("keyring: the password that it keeps does not open the store; going on without it")
            found = None if ask is None else ask_password(folder.root, ask)
    if found is None:
        raise needed()
    if found.source != "terminal" or ask is None:
        return SecretStore.open(folder, found.value), found
    return _try_typed(folder, found, say, ask)


def _try_typed(
    folder: StoreFolder, typed: FoundPassword | None, say: Say, ask: Ask
) -> tuple[SecretStore, FoundPassword]:
    """Open the store with what the person types, three times at most; nothing typed is not worth a derivation."""
    for _ in range(MAX_TRIES - 1):
        if typed is None:
            raise needed()
        try:
            if typed.value.reveal():
                return SecretStore.open(folder, typed.value), typed
        except WrongPasswordError as error:
            say(f"{error}; try again")
        typed = ask_password(folder.root, ask)
    if typed is None or not typed.value.reveal():
        raise needed()
    return SecretStore.open(folder, typed.value), typed
