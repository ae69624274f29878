"""Fixtures of the integration tier: a job server with a client, and a local installation with stand-in children."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from daemon.errors import NotRunningError
from tests.integration.git_servers import Repository
from tests.integration.grpc_server import Client, serving
from tests.integration.local_daemon import Local
from tests.integration.sources import Desk
from tests.integration.worker_rig import Rig


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A job server with the default settings, and a client with its token."""
    async with serving(tmp_path) as connected:
        yield connected


@pytest.fixture
def local() -> Iterator[Local]:
    """A short path, because of the sockets; everything is stopped at the end."""
    root = Path(tempfile.mkdtemp(prefix="runner-"))
    made = Local(root)
    yield made
    try:
        made.stop(now=True)
    except NotRunningError:
        pass
    finally:
        shutil.rmtree(root)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Prepares sources as an agent-runner does."""
    return Desk(tmp_path / "desk")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with two files and one commit."""
    made = Repository(tmp_path / "served" / "repo")
    made.commit(a="one", sub__b="two")
    return made


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A job server, and room for agent-runners with commands in the scripted sandbox."""
    made = Rig(tmp_path)
    try:
        await made.start_server()
        yield made
    finally:  # a server that outlives the loop of its test fails another one
        await made.close()
