"""Fixtures of the end-to-end tier."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instance import Instance
from tests.e2e.secrets_home import SecretsHome

ROOT = Path(__file__).parents[2]


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An installation that is not started; whatever the test leaves running is stopped and must be gone."""
    # Not below pytest's own folder: its path would leave no room for a socket's name.
    root = Path(tempfile.mkdtemp(prefix="runner-e2e-"))
    made = Instance(root)
    yield made
    made.stop()
    made.wait_gone()
    assert not made.workspaces(), "workspaces were left behind"
    assert not made.spooled(), "the spool was not emptied"
    shutil.rmtree(root)


@pytest.fixture
def started(instance: Instance) -> Instance:
    """An installation that runs, without secrets."""
    instance.start()
    return instance


@pytest.fixture
def home(tmp_path: Path) -> SecretsHome:
    """A home without a store; nothing is started in it."""
    return SecretsHome(tmp_path)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product as it is installed elsewhere; made once, because it takes an environment of its own."""
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(target),
            str(ROOT),
        ],
        check=True,
        timeout=150,
        capture_output=True,
    )
    return next(target.glob("*.whl"))
