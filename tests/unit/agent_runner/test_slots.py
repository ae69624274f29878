"""Slots are handed out in order, to those who still wait."""

from __future__ import annotations

import asyncio

import pytest

from agent_runner import slots
from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.slots import Slots

DEADLINE_S = 10.0


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up by time but where a test is about it."""
    monkeypatch.setattr(slots, "WAIT_S", DEADLINE_S)


async def waiting(made: Slots, *controls: AttemptControl) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(made.take(control)) for control in controls]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def taken(count: int) -> tuple[Slots, list[AttemptControl]]:
    made, controls = Slots(count), [AttemptControl() for _ in range(count)]
    assert [await made.take(control) for control in controls] == [True] * count
    return made, controls


async def test_first_come_first_served():
    """As many as there are slots go on at once, the others one by one; who leaves twice leaves once."""
    made, (one, another) = await taken(2)
    third = AttemptControl()
    first, second = await waiting(made, third, AttemptControl())
    assert made.wanted
    made.leave(one)
    made.leave(one)
    assert await first
    assert not second.done()
    made.leave(another)
    assert await second
    assert not made.wanted
    made.leave(third)
    assert await made.take(AttemptControl())


async def test_who_is_stopped_waits_no_more():
    """It ends without a slot, and leaves none; the slot is for the next one."""
    made, (running,) = await taken(1)
    control = AttemptControl()
    stopped, next_ = await waiting(made, control, AttemptControl())
    control.stop(StopReason.CANCEL, 0)
    assert await stopped is False
    assert await made.take(control) is False
    made.leave(control)
    assert not next_.done()
    assert made.wanted
    made.leave(running)
    assert await next_


async def test_who_came_ahead_and_waits_too_long_goes_without(monkeypatch: pytest.MonkeyPatch):
    """Nobody is to stand behind a long job."""
    monkeypatch.setattr(slots, "WAIT_S", 0.01)
    made, _ = await taken(1)
    async with asyncio.timeout(DEADLINE_S):
        assert await made.take(AttemptControl()) is False


@pytest.mark.parametrize("how", ["ended", "lost"])
async def test_who_waits_for_a_sandbox_to_go_did_not_come_ahead(
    monkeypatch: pytest.MonkeyPatch, how: str
):
    """The server knows of one free slot: one waits for it as long as it takes, and only the next one gives up."""
    monkeypatch.setattr(slots, "WAIT_S", 0.01)
    made, (running, _) = await taken(2)
    if how == "lost":
        running.stop(StopReason.LOST, 0)
    else:
        made.end(running)
    own, ahead = await waiting(made, AttemptControl(), AttemptControl())
    async with asyncio.timeout(DEADLINE_S):
        assert await ahead is False
    assert not own.done()
    made.leave(running)
    assert await own


@pytest.mark.parametrize("served", [False, True])
async def test_who_is_cancelled_takes_no_slot_along(served: bool):
    """Also not the one that it was given in the same turn of the loop."""
    made, (running,) = await taken(1)
    (task,) = await waiting(made, AttemptControl())
    if served:
        made.leave(running)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    if not served:
        made.leave(running)
    assert await made.take(AttemptControl())
