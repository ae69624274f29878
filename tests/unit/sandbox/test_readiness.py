"""Many descriptors by one registration at the loop."""

from __future__ import annotations

import asyncio
import os

import pytest

from sandbox.readiness import Readiness, readiness

DEADLINE_S = 10.0


async def test_who_can_be_read_is_told_until_forgotten() -> None:
    """Also the end of a pipe; of one that nobody watches any more nothing is told."""
    watched = readiness(asyncio.get_running_loop())
    told: asyncio.Queue[bytes] = asyncio.Queue()
    read_fd, write_fd = os.pipe()
    watched.watch(read_fd, lambda: told.put_nowait(os.read(read_fd, 10)))
    async with asyncio.timeout(DEADLINE_S):
        os.write(write_fd, b"said")
        assert await told.get() == b"said"
        os.close(write_fd)
        assert await told.get() == b""
    watched.forget(read_fd)
    watched.forget(read_fd)
    while not told.empty():
        assert await told.get() == b""

    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert told.empty()
    os.close(read_fd)


async def test_a_number_that_is_used_again_hears_nothing_of_its_predecessor() -> None:
    """Two can be read in the same turn, and what is told of the first closes the other, whose number goes to somebody else."""
    watched = readiness(asyncio.get_running_loop())
    told: list[int] = []
    done = asyncio.Event()
    pairs = dict((os.pipe(), os.pipe()))
    silent, keeps = os.pipe()

    def take(fd: int, other: int) -> None:
        told.append(fd)
        watched.forget(fd)
        watched.forget(other)
        os.dup2(silent, other)
        watched.watch(other, lambda: told.append(other))
        done.set()

    first, second = pairs
    watched.watch(first, lambda: take(first, second))
    watched.watch(second, lambda: take(second, first))
    for write_fd in pairs.values():
        os.write(write_fd, b"x")
    await asyncio.wait_for(done.wait(), DEADLINE_S)
    await asyncio.sleep(0)

    assert len(told) == 1
    watched.forget(second if told == [first] else first)
    for fd in (*pairs, *pairs.values(), silent, keeps):
        os.close(fd)


def test_each_loop_has_its_own() -> None:
    """Nothing that watched for a loop that is closed is used for the next one, nor keeps a descriptor."""

    async def own() -> tuple[Readiness, Readiness]:
        loop = asyncio.get_running_loop()
        return readiness(loop), readiness(loop)

    first, again = asyncio.run(own())
    assert first is again
    assert asyncio.run(own())[0] is not first
    with pytest.raises(ValueError, match="closed"):
        first.watch(0, print)
