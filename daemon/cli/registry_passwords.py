"""Where a job that runs here finds the passwords of registries: where it finds its secrets, but nobody is asked by then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_runner.errors import SecretSourceGoneError
from agent_runner.registry_logins import RegistryLogins
from agent_runner.secret_refs import SecretRef, SecretValues
from agent_runner.secret_source import Found
from daemon.cli.run_local_secrets import look_up_secrets
from daemon.errors import DaemonError

if TYPE_CHECKING:
    from agent_runner.container_policy import Registry
    from daemon.cli.secret_search import SecretSearch


class SearchedSecrets:
    """The ``SecretSource`` of one invocation for its registries."""

    def __init__(self, search: SecretSearch) -> None:
        self.at_hand: SecretValues = {}
        self._search = search

    async def ask(self, refs: Sequence[SecretRef]) -> Found:
        """Look into the environment, the store and the keyring; called before each pull.

        Raises:
            SecretSourceGoneError: The store cannot be read, or what unlocks it is wrong.
        """
        try:
            found = await asyncio.to_thread(look_up_secrets, refs, self._search, may_ask=False)
        except DaemonError as error:
            raise SecretSourceGoneError(str(error)) from None
        return Found(*found)


def registry_logins(registries: Sequence[Registry], search: SecretSearch) -> RegistryLogins | None:
    """Return who the caller is to registries; None if to nobody in particular. Called before anything runs.

    Raises:
        WrongPasswordError, DamagedSecretStoreError, Interrupted: As ``SecretSearch.open_store``, where a flag wants it open.
    """
    if not registries:
        return None
    if search.flags.needs_store:  # a person is asked now, not while an image is awaited
        search.open_store()
    return RegistryLogins(registries, SearchedSecrets(search))
