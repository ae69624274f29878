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
    tries = 1
    while True:
        if found is None:
            raise needed()
        try:
            return SecretStore.open(folder, found.value), found
        except WrongPasswordError as error:
            if ask is None or found.source != "terminal" or tries == MAX_TRIES:
                raise
            say(f"{error}; try again")
        tries += 1
        found = ask_password(folder.root, ask)
