"""Where an agent-runner without a daemon gets the values of its jobs: out of the store, which it reads itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runner.secret_refs import SecretRef, SecretValues
from agent_runner.secret_source import Found
from daemon.local.hidden_store import HiddenStore, Hide


class StoreSecrets:
    """An ``agent_runner.secret_source.ClosableSource``; the store may change while it is used.

    Without somebody who was asked at the start, ``${secret:local:NAME}`` is what the store has at ``local NAME``.
    """

    at_hand: SecretValues

    def __init__(self, store: Mapping[str, Any], hide: Hide) -> None:
        """Take what the handover says of the store, and what hides a value in the log of this process."""
        self.at_hand = {}
        # Nobody looks for leftovers among the children of this process: they are in its session.
        self._store = HiddenStore(store, set(), hide, service=True)

    async def ask(self, refs: Sequence[SecretRef]) -> Found:
        """Return what the store has now."""
        values, why_missing = await self._store.find(refs)
        return Found(values, why_missing)

    def close(self) -> None:
        """End what is being read. Idempotent."""
        self._store.close()
