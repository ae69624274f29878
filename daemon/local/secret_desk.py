"""Answers the questions of agent-runners for values of the secret store; see ``agent_runner.secret_source``."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_runner.secret_refs import SecretRef
    from daemon.secrets.store_reader import StoreReader

MAX_QUESTION_BYTES = 4 << 20
"""More than the references of any job need, which has 1 MiB."""

logger = logging.getLogger(__name__)

Hide = Callable[[str, str], bool]
"""Registers a value under a name, so that no log of ours shows it; False if it cannot be hidden. Called on any thread."""


class SecretDesk:
    """One per daemon; serves every agent-runner, and each new start of one. Used by the event loop only."""

    def __init__(self, store: Mapping[str, Any], spared: set[int], hide: Hide) -> None:
        """Take what ``StoreReader`` is made of, and what hides a value in our logs."""
        self._store = store
        self._spared = spared
        self._hide = hide
        self._reader: StoreReader | None = None
        self._hidden: dict[SecretRef, str] = {}
        self._serving: set[asyncio.Task[None]] = set()

    def serve(self, channel: socket.socket) -> None:
        """Answer until the other end is closed, which the death of the agent-runner does; called at each start of one."""
        task = asyncio.get_running_loop().create_task(self._serve(channel))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """Answer nobody any more. Idempotent."""
        if self._reader is not None:
            self._reader.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, channel: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=channel, limit=MAX_QUESTION_BYTES)
        try:
            while line := await reader.readline():
                writer.write(await self._answer(line))
                await writer.drain()
        except ConnectionError:
            return  # it has died; the supervisor knows
        except Exception:
            # Its end of the channel closes, and whoever asks there is told so.
            logger.exception("A question for secrets failed", extra={"action": "secrets_refused"})
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> bytes:
        question = json.loads(line)
        values, why_missing = await self._open_reader().find(question["refs"])
        await self._hide_new(values)
        answer = {
            "number": question["number"],
            "values": [[*ref, value] for ref, value in values.items()],
            "why_missing": why_missing,
        }
        return json.dumps(answer).encode() + b"\n"

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
            # Half a megabyte that a daemon without references does not need.
            from daemon.secrets.store_reader import StoreReader  # noqa: PLC0415

            self._reader = StoreReader(self._store, self._spared)
        return self._reader
