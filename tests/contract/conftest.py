"""Fixtures of the contract suites: each backend of the JobStore port, with a clock that a test moves; a client of an engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from daemon.clock import FixedClock
from daemon.jobs.store import JobStore
from sandbox.container.engine import Engine
from tests.contract.container_engine import settings_for
from tests.contract.deviations import SANDBOX_DEVIATIONS, backend_on
from tests.contract.engine_kinds import ENGINES
from tests.contract.job_store_backends import BACKENDS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try what wants an engine with one of each kind, unless a test says itself which."""
    marks = metafunc.definition.iter_markers("parametrize")
    own = any("container_engine" in mark.args[0] for mark in marks)
    if "container_engine" not in metafunc.fixturenames or own:
        return
    params = []
    for kind in ENGINES:
        reason = SANDBOX_DEVIATIONS.get((backend_on(kind), metafunc.definition.originalname))
        strict = () if reason is None else pytest.mark.xfail(reason=reason, strict=True)
        params.append(pytest.param(kind, marks=strict))
    metafunc.parametrize("container_engine", params, indirect=True)


@pytest.fixture
def engine_kind(request: pytest.FixtureRequest) -> str:
    """The kind of ``container_engine``."""
    kind: str = request.node.callspec.params["container_engine"]
    return kind


@pytest.fixture
def watch_requests(monkeypatch):
    """Return what has a function of a request, and of how to send it, stand between a provider and its engine."""

    def watch(provider, around):
        http = provider._engine._http
        send = http.send
        monkeypatch.setattr(
            http, "send", lambda request, **options: around(request, partial(send, **options))
        )

    return watch


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
