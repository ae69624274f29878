"""Receives the next message of a stream while the one before is dealt with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """An iterator that is one message ahead of who iterates; one per stream, used by one task, closed at its end."""

    def __init__(self, messages: AsyncIterator[T]) -> None:
        self._messages = messages
        self._next = asyncio.create_task(self._receive())

    @property
    def waiting(self) -> bool:
        """Tell whether another message is there already; False at the end, and where receiving has failed."""
        following = self._next
        if not following.done() or following.cancelled() or following.exception() is not None:
            return False
        return following.result() is not None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next message; raises what receiving it raised."""
        message = await self._next
        if message is None:
            raise StopAsyncIteration
        self._next = asyncio.create_task(self._receive())
        return message

    async def aclose(self) -> None:
        """Receive nothing more."""
        self._next.cancel()
        await asyncio.wait([self._next])

    async def _receive(self) -> T | None:
        return await anext(self._messages, None)
