"""The connection to the input and the outputs of one container."""

from __future__ import annotations

import httpcore2
import httpx2

from sandbox.container.frames import Channel, FrameSplitter

_READ_BYTES = 256 << 10
_LOST = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)


class Attachment:
    """A raw connection that the engine gave up HTTP for. Made by ``Engine.attach``, used by one command after the other."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer = answer
        self._connection = answer.extensions["network_stream"]
        self._splitter = FrameSplitter()

    async def read(self) -> list[tuple[Channel, bytes]] | None:
        """Return the pieces that have come; None at the end, also at one that nobody announced.

        Raises:
            FrameError: The engine sent nonsense.
        """
        try:
            data = bytes(await self._connection.read(_READ_BYTES))
        except _LOST:
            return None
        return list(self._splitter.feed(data)) if data else None

    async def write(self, data: bytes) -> bool:
        """Send to the input; tell whether somebody was there to take it."""
        try:
            await self._connection.write(data)
        except _LOST:
            return False
        return True

    async def close(self) -> None:
        """Let go. Idempotent."""
        await self._answer.aclose()
