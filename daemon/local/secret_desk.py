"""Answers the questions of agent-runners for values of the secret store; see ``agent_runner.secret_source``."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from typing import Any

from daemon.local.hidden_store import HiddenStore, Hide

MAX_QUESTION_BYTES = 4 << 20
"""More than the references of any job need, which has 1 MiB."""

logger = logging.getLogger(__name__)


class SecretDesk:
    """One per daemon; serves every agent-runner, and each new start of one. Used by the event loop only."""

    def __init__(self, store: Mapping[str, Any], spared: set[int], hide: Hide) -> None:
        """Take what ``HiddenStore`` is made of."""
        self._store = HiddenStore(store, spared, hide)
        self._serving: set[asyncio.Task[None]] = set()

    def serve(self, channel: socket.socket) -> None:
        """Answer until the other end is closed, which the death of the agent-runner does; called at each start of one."""
        task = asyncio.get_running_loop().create_task(self._serve(channel))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        """Answer nobody any more. Idempotent."""
        self._store.close()
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
        values, why_missing = await self._store.find(question["refs"])
        answer = {
            "number": question["number"],
            "values": [[*ref, value] for ref, value in values.items()],
            "why_missing": why_missing,
        }
        return json.dumps(answer).encode() + b"\n"
