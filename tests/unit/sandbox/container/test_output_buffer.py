"""Output on its way: bounded, in order, and never in the way of a kill."""

from __future__ import annotations

import asyncio

from sandbox.container.output_buffer import DRAIN_BYTES, HIGH_WATER_BYTES, OutputBuffer

PIECE = b"x" * (64 << 10)


async def test_a_producer_waits_for_room():
    """It is held back at the high mark, and goes on when most was read."""
    buffer = OutputBuffer()
    for _ in range(HIGH_WATER_BYTES // len(PIECE)):
        assert not buffer.paused
        buffer.put(PIECE)
    assert buffer.paused
    waiting = asyncio.ensure_future(buffer.room())
    read = 0
    async for piece in buffer.stream():
        read += len(piece)
        if not buffer.paused:
            break
    assert read < HIGH_WATER_BYTES
    await waiting


async def test_everything_arrives_in_order_and_ends():
    """What came before the end is read, what comes after is not."""
    buffer = OutputBuffer()
    buffer.put(b"a")
    buffer.put(b"b")
    buffer.end()
    buffer.put(b"c")
    buffer.end()
    assert [piece async for piece in buffer.stream()] == [b"a", b"b"]


async def test_what_is_drained_is_bounded_and_the_loss_is_said():
    """A command that is being ended is never held back; what nobody can keep is counted."""
    buffer = OutputBuffer()
    buffer.drain()
    for _ in range(DRAIN_BYTES // len(PIECE) + 3):
        buffer.put(PIECE)
        assert not buffer.paused
    buffer.end()
    pieces = [piece async for piece in buffer.stream()]
    assert pieces[-1] == b"\n[runner: %d bytes of output were dropped]\n" % (3 * len(PIECE))
    assert sum(map(len, pieces[:-1])) == DRAIN_BYTES
