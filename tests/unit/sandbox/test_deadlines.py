"""Calls at moments, by one timer."""

from __future__ import annotations

import asyncio

from sandbox.deadlines import Deadlines, deadlines


async def test_each_is_called_in_time_and_once() -> None:
    """Whichever was asked for first; nothing that was dropped, and nothing later."""
    loop = asyncio.get_running_loop()
    kept, called, done = Deadlines(loop), [], asyncio.Event()
    began = loop.time()

    def note(name: str) -> None:
        called.append((name, loop.time() - began))

    calls = {name: (lambda name=name: note(name)) for name in ("late", "dropped", "soon", "never")}
    kept.keep(began + 3600, calls["never"])
    kept.keep(began + 0.1, calls["late"])
    kept.keep(began + 0.02, calls["soon"])
    kept.keep(began + 0.05, calls["dropped"])
    kept.keep(began + 0.15, done.set)
    kept.drop(calls["dropped"])
    kept.drop(calls["dropped"])
    async with asyncio.timeout(30):
        await done.wait()

    assert [name for name, _ in called] == ["soon", "late"]
    for (_, after), asked in zip(called, (0.02, 0.1), strict=True):
        assert after >= asked - 0.01  # the resolution of the clock


async def test_one_that_is_over_is_called_at_once() -> None:
    """What was asked for too late is not lost."""
    loop = asyncio.get_running_loop()
    kept, done = deadlines(loop), asyncio.Event()
    assert deadlines(loop) is kept

    kept.keep(loop.time() - 1, done.set)

    async with asyncio.timeout(30):
        await done.wait()


async def test_a_call_that_fails_keeps_no_other_from_its_own() -> None:
    """It is told by the loop, as that of any timer."""
    loop = asyncio.get_running_loop()
    kept, done = Deadlines(loop), asyncio.Event()
    failures: list[object] = []
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def fail() -> None:
        raise RuntimeError("x")

    kept.keep(loop.time(), fail)
    kept.keep(loop.time(), done.set)

    async with asyncio.timeout(30):
        await done.wait()
    assert [type(failure) for failure in failures] == [RuntimeError]


async def test_the_timer_is_not_made_anew_for_each() -> None:
    """One that is there and rings before is enough."""
    loop = asyncio.get_running_loop()
    kept = Deadlines(loop)
    kept.keep(loop.time() + 3600, lambda: None)
    timer = kept._timer

    for second in range(3600, 3700):
        call = loop.stop
        kept.keep(loop.time() + second, call)
        kept.drop(call)

    assert kept._timer is timer
