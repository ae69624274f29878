"""Who this agent-runner is to registries of images: the passwords are asked for before each pull, and kept nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from agent_runner.container_policy import Registry
from agent_runner.errors import SecretSourceGoneError
from agent_runner.secret_refs import find_refs, resolve
from agent_runner.secret_source import SecretSource
from sandbox.container.registries import RegistryLogin
from sandbox.errors import ImageMissingError

_VALUE = "password"


class RegistryLogins:
    """The ``logins`` of ``ContainerSettings``. Used by many attempts at once, on one event loop."""

    def __init__(self, registries: Sequence[Registry], secrets: SecretSource) -> None:
        self._registries = {each.host: each for each in registries}
        self._secrets = secrets

    async def __call__(self, host: str) -> RegistryLogin | None:
        """Return the name and the password for a registry; None if none is configured.

        Raises:
            ImageMissingError: The password cannot be had; says where it should come from, and what to do.
        """
        registry = self._registries.get(host)
        if registry is None:
            return None
        asked = {_VALUE: registry.password}
        refs = list(find_refs(asked))
        at_hand = self._secrets.at_hand
        values, why = {ref: at_hand[ref] for ref in refs if ref in at_hand}, ""
        if missing := [ref for ref in refs if ref not in values]:
            try:
                found = await self._secrets.ask(missing)
            except SecretSourceGoneError as error:
                raise ImageMissingError(f"no password for the registry {host}: {error}") from error
            values |= found.values
            why = f": {found.why_missing}" if found.why_missing else ""
        if lacking := [str(ref) for ref in refs if ref not in values]:
            raise ImageMissingError(
                f"no password for the registry {host}: no value for {', '.join(lacking)}{why}"
            )
        password = resolve(asked, values)[_VALUE]
        return RegistryLogin(username=registry.username, password=password)
