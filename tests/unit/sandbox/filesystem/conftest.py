"""What several tests of one file system share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.filesystem.spawner import Spawner
from sandbox.filesystem.trampoline import Trampoline
from sandbox.process_tree import own_helpers
from tests.unit.sandbox.filesystem.spawned import run


@pytest.fixture
def made() -> Iterator[Spawner]:
    """One that has spawned its first command, so that the next one has a helper."""
    spawner = Spawner(Trampoline())
    assert run(spawner, "exit 3") == (3, b"")
    assert spawner._helper is None
    yield spawner
    spawner.close()
    spawner.close()
    assert own_helpers == set()
