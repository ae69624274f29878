"""The way of output through masking into a log: its order, its failures, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_runner.log_pump import MIN_THREAD_BYTES, LogPump
from sandbox.masking.masker import Masker

SECRET = "Marigold-77-of-the-garden"
BOUND_S = 20


class Log:
    """Takes what is written; fails once it is full."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.data = b""
        self._room = room

    def write(self, data: bytes) -> None:
        """Take bytes."""
        if len(self.data) + len(data) > self._room:
            raise OSError("no space left on device")
        self.data += data

    async def drained(self) -> None:
        """Return at once."""


def pump_into(log: Log) -> LogPump:
    masker = Masker()
    masker.add("S", SECRET)
    return LogPump(masker.stream, log.write, log.drained)


async def printed(*chunks: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)
    if then is not None:
        raise then


async def test_large_and_small_pieces_stay_in_order():
    """A small piece never overtakes a large one, and a secret may be cut between them."""
    half = len(SECRET) // 2
    chunks: list[bytes] = []
    for number in range(40):
        size = MIN_THREAD_BYTES * 4 if number % 3 else 10
        chunks.append(f"{number:04}".encode() * size + SECRET[:half].encode())
        chunks.append(f"{SECRET[half:]}\n".encode())
    log = Log()
    async with asyncio.timeout(BOUND_S):
        await pump_into(log).run(printed(*chunks))

    assert log.data == b"".join(chunks).replace(SECRET.encode(), b"***")


@pytest.mark.parametrize("size", [10, MIN_THREAD_BYTES])
async def test_what_was_read_is_written_when_the_output_fails(size):
    """A container engine that goes away takes nothing with it that had come."""
    log = Log()
    with pytest.raises(ConnectionError, match="gone"):
        async with asyncio.timeout(BOUND_S):
            await pump_into(log).run(
                printed(b"a" * size, b"b" * size, then=ConnectionError("gone"))
            )

    assert log.data == b"a" * size + b"b" * size


@pytest.mark.parametrize("size", [10, MIN_THREAD_BYTES])
async def test_a_log_that_fails_is_told_at_once(size):
    """Though the command prints nothing more and does not end."""

    async def silent_then() -> AsyncIterator[bytes]:
        yield b"a" * size
        await asyncio.Event().wait()

    with pytest.raises(OSError, match="no space"):
        async with asyncio.timeout(BOUND_S):
            await pump_into(Log(room=5)).run(silent_then())


async def test_a_cancelled_pump_ends():
    """Whoever cancels it does not wait for output."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"a" * MIN_THREAD_BYTES

    log = Log()
    pump = asyncio.create_task(pump_into(log).run(endless()))
    async with asyncio.timeout(BOUND_S):
        while len(log.data) < 10 * MIN_THREAD_BYTES:
            await asyncio.sleep(0.001)
        pump.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pump


@pytest.mark.parametrize("size", [10, MIN_THREAD_BYTES])
async def test_nothing_is_written_behind_a_gap(size):
    """What comes behind a piece that the log did not take is not taken either, though there were room for it."""
    log = Log(room=3 * MIN_THREAD_BYTES)
    chunks = [b"a" * 4 * MIN_THREAD_BYTES, *[b"b" * size] * 5]
    with pytest.raises(OSError, match="no space"):
        async with asyncio.timeout(BOUND_S):
            await pump_into(log).run(printed(*chunks))

    assert log.data == b""
