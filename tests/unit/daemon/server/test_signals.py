"""Wake-ups within the server."""

from __future__ import annotations

import asyncio

from daemon.server.signals import EVERY_JOB, STOP, Signals, log_key


async def test_signal_before_the_wait_is_kept():
    """Who reads first and waits then misses nothing."""
    signals = Signals()
    with signals.subscribe(("a",)) as changes:
        signals.job_changed("a")

        assert await changes.wait() == {"a"}


async def test_many_signals_are_one_wake_up():
    """A slow waiter costs nothing."""
    signals = Signals()
    with signals.subscribe(("a", log_key("a"))) as changes:
        for _ in range(1000):
            signals.log_grown("a")
        signals.job_changed("a")

        assert await changes.wait() == {"a", log_key("a")}
        assert changes.take() == set()


async def test_only_listeners_of_the_key_wake():
    """A log that grows wakes no watcher; another job wakes nobody."""
    signals = Signals()
    with signals.subscribe(("a",)) as one, signals.subscribe((EVERY_JOB,)) as all_jobs:
        signals.log_grown("a")
        signals.job_changed("b")

        assert one.take() == set()
        assert all_jobs.take() == {EVERY_JOB}


async def test_stop_wakes_everybody_and_who_comes_later():
    """Nobody waits for a server that has gone."""
    signals = Signals()
    with signals.subscribe(("a",)) as early:
        waiting = asyncio.create_task(early.wait())
        await asyncio.sleep(0)
        signals.stop()
        assert await waiting == {STOP}
    with signals.subscribe(("a",)) as late:
        assert await late.wait() == {STOP}


def test_nothing_is_kept_after_the_block():
    """A key without listeners is forgotten, also when it is named twice."""
    signals = Signals()
    with signals.subscribe(("a", "a")):
        pass

    assert signals._waiters == {}
