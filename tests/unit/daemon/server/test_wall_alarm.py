"""The alarm at a time of the wall clock."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

from daemon.server.wall_alarm import WallAlarm


async def test_rings_once_at_its_time():
    """Not before; a later setting takes the place of the one before; a moment that is over rings at once."""
    rung = asyncio.Event()
    with closing(WallAlarm(rung.set)) as alarm:
        alarm.set_in(3_600_000_000)
        alarm.set_in(50_000)
        begin = time.time()
        async with asyncio.timeout(10):
            await rung.wait()
        assert time.time() - begin >= 0.05

        rung.clear()
        alarm.set_in(-5)
        async with asyncio.timeout(10):
            await rung.wait()


async def test_can_be_taken_back():
    """Without a time it does not ring; two alarms know nothing of each other."""
    silent, loud = asyncio.Event(), asyncio.Event()
    with closing(WallAlarm(silent.set)) as first, closing(WallAlarm(loud.set)) as second:
        first.set_in(1000)
        first.set_in(None)
        second.set_in(20_000)
        async with asyncio.timeout(10):
            await loud.wait()
        assert not silent.is_set()
