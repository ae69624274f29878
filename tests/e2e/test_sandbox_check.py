"""``runner sandbox check``: every wall is tried, and what is printed is what withstood."""

from __future__ import annotations

import json
import os

import pytest

from sandbox.base import Wall
from sandbox.filesystem import self_check
from sandbox.filesystem.self_check import check_walls


@pytest.mark.parametrize("tier", ["bwrap", "landlock", "plain"])
def test_every_wall_is_tried(instance, tier):
    """Each is held or not, and none is broken."""
    done = instance.run("sandbox", "check", "--tier", tier, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["tier"] == tier
    held = {wall["name"]: wall["held"] for wall in document["walls"]}
    assert list(held) == [str(wall) for wall in Wall]
    assert not any(wall["broken"] for wall in document["walls"])
    missing = {name for name, holds in held.items() if not holds}
    assert {
        "bwrap": missing == set() if os.geteuid() == 0 else missing <= {"job_uid"},
        "landlock": {"processes", "protect", "tree_kill"} <= missing,
        "plain": "fs_write" in missing and "network" in missing,
    }[tier]


def test_a_table_for_people(instance):
    """One line per wall."""
    done = instance.run("sandbox", "check")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["WALL", "HELD", "HOW"]
    assert len(lines) == 1 + len(Wall)


async def test_a_wall_that_does_not_withstand_is_broken(reachable_dir, monkeypatch):
    """Whatever the tier says of itself."""

    async def failed(_) -> bool:
        return False

    monkeypatch.setattr(self_check, "_PARENT", str(reachable_dir))
    monkeypatch.setitem(self_check._PROBES, Wall.FS_READ, failed)
    _, checks = await check_walls(None)
    assert [check.wall for check in checks if check.broken] == [Wall.FS_READ]
    assert not list(reachable_dir.iterdir())
