"""Work that outlives its caller."""

from __future__ import annotations

import asyncio

import pytest

from daemon.server.completions import Completions


async def test_result_and_error_reach_the_caller():
    """As if it had been awaited."""
    completions = Completions()

    async def fail() -> None:
        raise ValueError("at once")

    assert await completions.run(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ValueError, match="at once"):
        await completions.run(fail())


async def test_work_goes_on_when_its_caller_leaves(caplog):
    """It is completed, drain waits for it, and a failure is logged because nobody else sees it."""
    completions = Completions()
    go_on = asyncio.Event()
    done = []

    async def work(error: Exception | None) -> None:
        await go_on.wait()
        done.append(error)
        if error is not None:
            raise error

    callers = [
        asyncio.create_task(completions.run(work(error))) for error in (None, ValueError("late"))
    ]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    draining = asyncio.create_task(completions.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    go_on.set()
    await draining

    assert len(done) == 2
    assert [record.action for record in caplog.records] == ["abandoned_call_failed"]
