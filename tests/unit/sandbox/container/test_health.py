"""Whether the engine answers: told at once when it does not, and once when it does again."""

from __future__ import annotations

import asyncio
import logging

import pytest

from sandbox.container import health
from sandbox.container.health import EngineHealth
from sandbox.errors import EngineGoneError


class Patient:
    """An engine, as far as its health is concerned."""

    def __init__(self, answers: bool) -> None:
        self.answers = answers
        self.asked = 0
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.health = EngineHealth(self.ask, self.told.put_nowait)

    async def ask(self) -> None:
        self.asked += 1
        if not self.answers:
            raise EngineGoneError(f"asked {self.asked}") if self.asked % 2 else ValueError("asked")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(health, "LONGEST_PAUSE_S", 0.002)


async def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture):
    """However many requests fail meanwhile; its end, too, and the next one anew."""
    caplog.set_level(logging.INFO)
    patient = Patient(answers=False)
    for outage in (1, 2):
        patient.answers = False
        patient.health.failed(EngineGoneError("first"))
        patient.health.failed(EngineGoneError("second"))
        assert await patient.told.get() == "first"
        before = patient.asked
        while patient.asked < before + 3:
            await asyncio.sleep(0)
        patient.answers = True
        assert (await patient.told.get()).startswith("asked")
        assert await patient.told.get() == ""
        actions = [getattr(record, "action", "") for record in caplog.records]
        assert actions == ["engine_away", "engine_back"] * outage
    await patient.health.close()


async def test_a_request_that_failed_alone_is_no_outage(caplog: pytest.LogCaptureFixture):
    """Nothing is logged, and what was refused for a moment is offered again."""
    patient = Patient(answers=True)
    patient.health.failed(EngineGoneError("late"))
    assert [await patient.told.get(), await patient.told.get()] == ["late", ""]
    assert not caplog.records


async def test_nobody_asks_after_the_end():
    """Closing ends the asking, in the middle of it too."""
    patient = Patient(answers=False)
    patient.health.failed(EngineGoneError("away"))
    while not patient.asked:
        await asyncio.sleep(0)
    await patient.health.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_where_each_job_says_so_itself_nothing_is_logged(caplog: pytest.LogCaptureFixture):
    """``run-local`` has one job, and its user reads the end of that."""
    patient = Patient(answers=False)
    alone = EngineHealth(patient.ask, None)
    alone.failed(EngineGoneError("away"))
    while patient.asked < 3:
        await asyncio.sleep(0)
    await alone.close()
    assert not caplog.records
