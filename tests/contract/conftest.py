"""Fixtures of the contract suites: each backend of the JobStore port, with a clock that a test moves; a client of an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.jobs.store import JobStore
from sandbox.container.engine import Engine
from tests.contract.container_engine import settings_for
from tests.contract.job_store_backends import BACKENDS


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture(params=BACKENDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FixedClock
) -> AsyncIterator[JobStore]:
    store = BACKENDS[request.param](tmp_path, clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def engine(container_engine: Path) -> AsyncIterator[Engine]:
    """A client of the engine that all tests share, to look at what a backend made."""
    client = Engine(settings_for(container_engine))
    await client.connect()
    yield client
    await client.close()
