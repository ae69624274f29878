"""One message ahead: order, end, failure, and what is told of the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from daemon.server.read_ahead import ReadAhead

BOUND_S = 20


class Sender:
    """Messages that come when they are sent; an exception is raised, None ends them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.begun = self.closed = False

    def send(self, *messages: str | Exception | None) -> None:
        for message in messages:
            self._queue.put_nowait(message)

    async def messages(self) -> AsyncIterator[str]:
        self.begun = True
        try:
            while (message := await self._queue.get()) is not None:
                if isinstance(message, Exception):
                    raise message
                yield message
        finally:
            self.closed = True


async def until_waiting(ahead: ReadAhead[str]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not ahead.waiting:
            await asyncio.sleep(0)


async def test_every_message_comes_in_order():
    """And then the end."""
    sender = Sender()
    sender.send("a", "b", "c", None)
    async with asyncio.timeout(BOUND_S), aclosing(ReadAhead(sender.messages())) as ahead:
        assert [message async for message in ahead] == ["a", "b", "c"]


async def test_the_next_one_is_received_while_one_is_dealt_with():
    """Whoever deals with the first learns whether there is a second."""
    sender = Sender()
    sender.send("a")
    async with asyncio.timeout(BOUND_S), aclosing(ReadAhead(sender.messages())) as ahead:
        assert await anext(ahead) == "a"
        assert not ahead.waiting
        sender.send("b")
        await until_waiting(ahead)
        assert await anext(ahead) == "b"
        assert not ahead.waiting


@pytest.mark.parametrize("end", [None, ConnectionError("gone")], ids=["end", "failure"])
async def test_an_end_is_no_message_that_waits(end):
    """What failed is raised where it belongs: behind what had come before."""
    sender = Sender()
    sender.send("a", end)
    async with asyncio.timeout(BOUND_S), aclosing(ReadAhead(sender.messages())) as ahead:
        assert await anext(ahead) == "a"
        while not sender.closed:
            await asyncio.sleep(0)
        assert not ahead.waiting
        with pytest.raises(StopAsyncIteration if end is None else ConnectionError):
            await anext(ahead)


async def test_closed_it_receives_nothing_more():
    """Whoever gives up in the middle leaves no task behind."""
    before = asyncio.all_tasks()
    sender = Sender()
    async with asyncio.timeout(BOUND_S), aclosing(ReadAhead(sender.messages())) as ahead:
        while not sender.begun:
            await asyncio.sleep(0)
    del ahead

    assert sender.closed
    assert asyncio.all_tasks() == before
