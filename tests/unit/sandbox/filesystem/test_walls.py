"""Rulesets that are kept for the next command in the same folders."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandbox.base import Network
from sandbox.filesystem.landlock import kernel_abi
from sandbox.filesystem.walls import LandlockWalls
from sandbox.filesystem.workspace import Workspace

pytestmark = pytest.mark.skipif(kernel_abi() < 1, reason="needs Landlock")
MOST_KEPT = 16


@pytest.fixture
def walls() -> Iterator[LandlockWalls]:
    """Walls that are closed after the test."""
    made = LandlockWalls()
    yield made
    made.close()


def descriptors() -> int:
    """Return how many this process has."""
    return len(os.listdir("/proc/self/fd"))


def test_the_same_folders_have_the_same_rules(walls, tmp_path):
    """Under any name, but not once they are others, and not for another network."""
    workspace = Workspace(tmp_path / "a", None).create()
    before = descriptors()
    for _ in range(3):
        walls.ruleset(workspace, Network.ON).close()
    assert descriptors() == before + 1
    walls.ruleset(workspace, Network.OFF).close()
    assert descriptors() == before + 2
    workspace.path.rename(tmp_path / "b")
    walls.ruleset(Workspace(tmp_path / "b", None), Network.ON).close()
    assert descriptors() == before + 2
    walls.ruleset(Workspace(tmp_path / "a", None).create(), Network.ON).close()
    assert descriptors() == before + 3


def test_few_are_kept(walls, tmp_path):
    """The folders of sandboxes that are gone are let go of, and nothing is left at the end."""
    before = descriptors()
    for number in range(MOST_KEPT + 3):
        workspace = Workspace(tmp_path / str(number), None).create()
        walls.ruleset(workspace, Network.ON).close()
        workspace.remove()
    assert descriptors() == before + MOST_KEPT
    rules = len(walls._rules)
    walls.close()
    assert descriptors() == before - rules


def test_a_workspace_without_its_folders_has_no_rules(walls, tmp_path):
    """Nothing is begun in it, and nothing stays open."""
    workspace = Workspace(tmp_path / "a", None).create()
    workspace.tmp.rmdir()
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        walls.ruleset(workspace, Network.ON)
    assert descriptors() == before
