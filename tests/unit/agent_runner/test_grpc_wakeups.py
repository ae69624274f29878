"""Wake-ups of gRPC: a loop that is woken several times at once takes all of it in one turn, and loses none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from agent_runner.grpc_wakeups import heard_at_once


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends over which a thread wakes a loop."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


async def test_operations_that_end_together_wake_the_loop_once(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """Five bytes are one call of a reader that takes one byte, and a byte that comes later is another."""
    ours, theirs = sockets
    calls: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    theirs.send(b"12345")
    with heard_at_once():
        loop.add_reader(ours, lambda: calls.put_nowait(ours.recv(1)))
    try:
        assert await asyncio.wait_for(calls.get(), 5) == b"5"
        theirs.send(b"6")
        assert await asyncio.wait_for(calls.get(), 5) == b"6"
        assert calls.empty()
    finally:
        loop.remove_reader(ours)


async def test_grpc_asks_the_loop_while_its_channel_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reader that gRPC gives to a loop at its first use there is the one that is wrapped."""
    loop: Any = asyncio.get_running_loop()
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(loop, "add_reader", lambda *args: asked.append(args))
    with heard_at_once():
        channel = grpc.aio.insecure_channel("unix:/nowhere")
    monkeypatch.undo()
    (args,) = asked
    loop.add_reader(*args)
    await channel.close()
    watched, _, handed_on, _ = args
    assert handed_on is watched
