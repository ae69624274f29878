"""Fixtures of the contract suites: each backend of the JobStore port, with a clock that a test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.jobs.store import JobStore
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
