"""The way of output through masking into a log: its order, its failures, its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from agent_runner.log_pump import CALM_BYTES, SLOW_S, LogPump
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


class Threads(Stream):
    """Remembers where it was fed; takes long for one text, and says something at the end."""

    def __init__(self) -> None:
        self.aside: list[bool] = []

    def feed(self, data: bytes) -> bytes:
        """Return what came."""
        self.aside.append(threading.current_thread() is not threading.main_thread())
        until = time.thread_time() + 2 * SLOW_S
        while data == b"slow" and time.thread_time() < until:
            continue
        return data

    def close(self) -> bytes:
        """Return the rest."""
        return b"end"


@pytest.mark.parametrize(
    ("chunks", "aside"),
    [
        ((b"quick", b"quick"), "--"),
        ((b"quick", b"slow", b"quick", b"slow"), "--TT"),
        ((b"slow", b"quick" * CALM_BYTES, b"quick"), "-T-"),
        ((b"slow", b"quick", b"quick" * CALM_BYTES, b"slow", b"quick"), "-TT-T"),
        ((COMMAND, b"its value", bytes(CALM_BYTES), b"quick"), "TTT-"),
        ((b"::add-", b"mask", b"::its", b" value"), "--TT"),
    ],
    ids=["quick", "slow", "calm again", "slow again", "command", "a command in pieces"],
)
async def test_what_takes_long_is_masked_on_a_thread(chunks, aside):
    """And what comes behind it, until much was quick again; what may hold a value that has to be spelled, at once."""
    log, stream = Log(), Threads()
    async with asyncio.timeout(BOUND_S):
        await LogPump(lambda: stream, log.write, log.drained).run(printed(*chunks))

    assert stream.aside == [sign == "T" for sign in aside]
    assert log.data == b"".join(chunks) + b"end"


@WHERE
async def test_no_more_is_read_than_the_log_has_room_for(sign):
    """Else a server that is slow would cost memory; the command waits."""
    log, room, reading = Log(), asyncio.Event(), asyncio.Event()

    async def drained() -> None:
        await room.wait()

    async def two() -> AsyncIterator[bytes]:
        yield sign + b"a"
        reading.set()
        yield b"b"

    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        group.create_task(LogPump(Masker().stream, log.write, drained).run(two()))
        while not log.data:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.is_set()
        room.set()

    assert log.data == sign + b"ab"
