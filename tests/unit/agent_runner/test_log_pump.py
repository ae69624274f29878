"""The way of output through masking into a log: its order, its failures, its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from agent_runner.log_pump import SLOW_S, LogPump
from sandbox.masking.commands import COMMAND
from sandbox.masking.masker import Masker
from sandbox.masking.stream import Stream

SECRET = "Marigold-77-of-the-garden"
PIECE_BYTES = 32 << 10
WHERE = pytest.mark.parametrize("sign", [b"", COMMAND], ids=["on the loop", "on a thread"])
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


async def test_pieces_stay_in_order():
    """No piece overtakes one that takes long, and a secret may be cut between them."""
    half = len(SECRET) // 2
    chunks: list[bytes] = []
    for number in range(40):
        size = PIECE_BYTES * 4 if number % 3 else 10
        sign = b"" if number % 4 else COMMAND
        chunks.append(f"{number:04}".encode() * size + sign + SECRET[:half].encode())
        chunks.append(f"{SECRET[half:]}\n".encode())
    log = Log()
    async with asyncio.timeout(BOUND_S):
        await pump_into(log).run(printed(*chunks))

    assert log.data == b"".join(chunks).replace(SECRET.encode(), b"***")


@WHERE
async def test_what_was_read_is_written_when_the_output_fails(sign):
    """A container engine that goes away takes nothing with it that had come."""
    log = Log()
    with pytest.raises(ConnectionError, match="gone"):
        async with asyncio.timeout(BOUND_S):
            await pump_into(log).run(
                printed(sign + b"a", sign + b"b", then=ConnectionError("gone"))
            )

    assert log.data == sign + b"a" + sign + b"b"


@WHERE
async def test_a_log_that_fails_is_told_at_once(sign):
    """Though the command prints nothing more and does not end."""

    async def silent_then() -> AsyncIterator[bytes]:
        yield sign + b"a" * 10
        await asyncio.Event().wait()

    with pytest.raises(OSError, match="no space"):
        async with asyncio.timeout(BOUND_S):
            await pump_into(Log(room=5)).run(silent_then())


@WHERE
async def test_a_cancelled_pump_ends(sign):
    """Whoever cancels it does not wait for output."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield sign + b"a" * PIECE_BYTES
            await asyncio.sleep(0)

    log = Log()
    pump = asyncio.create_task(pump_into(log).run(endless()))
    async with asyncio.timeout(BOUND_S):
        while len(log.data) < 10 * PIECE_BYTES:
            await asyncio.sleep(0.001)
        pump.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pump


@WHERE
async def test_nothing_is_written_behind_a_gap(sign):
    """What comes behind a piece that the log did not take is not taken either, though there were room for it."""
    log = Log(room=3 * PIECE_BYTES)
    chunks = [sign + b"a" * 4 * PIECE_BYTES, *[b"b" * 10] * 5]
    with pytest.raises(OSError, match="no space"):
        async with asyncio.timeout(BOUND_S):
            await pump_into(log).run(printed(*chunks))

    assert log.data == b""


async def test_only_what_takes_long_is_masked_on_a_thread():
    """Behind a piece that took long, until one did not; what may hold a value that has to be spelled, at once."""
    threads: list[str] = []

    class Slow(Stream):
        def feed(self, data: bytes) -> bytes:
            threads.append(threading.current_thread().name)
            until = time.thread_time() + 2 * SLOW_S
            while data == b"slow" and time.thread_time() < until:
                continue
            return data

        def close(self) -> bytes:
            return b""

    log = Log()
    chunks = (b"quick", b"slow", b"quick", b"quick", COMMAND, b"quick")
    await LogPump(Slow, log.write, log.drained).run(printed(*chunks))

    assert [name.startswith("log") for name in threads] == [False, False, True, False, True, False]
    assert log.data == b"".join(chunks)
