"""The values of the secret store, none of which leaves before the logs of this process hide it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runner.secret_refs import SecretRef
    from daemon.secrets.store_reader import StoreReader

logger = logging.getLogger(__name__)

Hide = Callable[[str, str], bool]
"""Registers a value under a name, so that no log of ours shows it; False if it cannot be hidden. Called on any thread."""


class HiddenStore:
    """One per process that reads the store. Used by the event loop only."""

    def __init__(
        self, store: Mapping[str, Any], spared: set[int], hide: Hide, *, service: bool = False
    ) -> None:
        """Take what ``StoreReader`` is made of, and what hides a value in our logs."""
        self._store = store
        self._spared = spared
        self._hide = hide
        self._service = service
        self._reader: StoreReader | None = None
        self._hidden: dict[SecretRef, str] = {}

    async def find(self, names: Iterable[Sequence[str]]) -> tuple[dict[SecretRef, str], str]:
        """Return the values that the store has now, and what a person can do about the rest; as ``StoreReader.find``."""
        values, why_missing = await self._open_reader().find(names)
        await self._hide_new(values)
        return values, why_missing

    def close(self) -> None:
        """End what is being read. Idempotent."""
        if self._reader is not None:
            self._reader.close()

    async def _hide_new(self, values: Mapping[SecretRef, str]) -> None:
        """Hide what has not been hidden yet, before the agent-runner has it: from then on its log may hold it.

        A thread does it, because all forms of a long value take half a second.
        """
        new = {ref: value for ref, value in values.items() if self._hidden.get(ref) != value}
        if new:
            refused = await asyncio.to_thread(self._refused, new)
            self._hidden |= new
            for ref in refused:
                facts = {"action": "secret_not_masked", "secret": f"{ref.path}:{ref.key}"}
                logger.warning("A secret cannot be masked in our own logs", extra=facts)

    def _refused(self, values: Mapping[SecretRef, str]) -> list[SecretRef]:
        """Hide values; return those that cannot be hidden."""
        return [
            ref for ref, value in values.items() if not self._hide(f"{ref.path}:{ref.key}", value)
        ]

    def _open_reader(self) -> StoreReader:
        if self._reader is None:
            # Half a megabyte that a process without references does not need.
            from daemon.secrets.store_reader import StoreReader  # noqa: PLC0415

            self._reader = StoreReader(self._store, self._spared, service=self._service)
        return self._reader
