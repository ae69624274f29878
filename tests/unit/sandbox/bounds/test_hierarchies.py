"""Where control groups may be made is read from what the kernel says about itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.bounds.hierarchies import Mount, find_hierarchies, parse_mounts
from sandbox.limits import Keeper, Limit

HYBRID_MOUNTS = """\
24 1 8:1 / / rw - ext4 /dev/sda1 rw
30 24 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
33 24 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_GROUPS = "9:name=systemd:/\n4:memory:/outer/inner\n1:cpu,cpuacct:/\n0::/user\n"


def test_a_hybrid_host() -> None:
    """Each controller has its tree, and version 2 is one more."""
    mounts = parse_mounts(HYBRID_MOUNTS, HYBRID_GROUPS)
    assert {(mount.keeper, str(mount.own)) for mount in mounts} == {
        (Keeper.CGROUP_V1, "/sys/fs/cgroup/memory/outer/inner"),
        (Keeper.CGROUP_V1, "/sys/fs/cgroup/cpu,cpuacct"),
        (Keeper.CGROUP_V1, "/sys/fs/cgroup/systemd"),
        (Keeper.CGROUP_V2, "/sys/fs/cgroup/unified/user"),
    }


def test_a_container_sees_its_group_at_the_mount_point() -> None:
    """Without a namespace of its own the path begins with what is mounted; with one it is the root."""
    line = "33 24 0:29 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    for own, expected in (
        ("0::/docker/ab/x\n", "/sys/fs/cgroup/x"),
        ("0::/docker/ab\n", "/sys/fs/cgroup"),
        ("0::/\n", "/sys/fs/cgroup"),
    ):
        (mount,) = parse_mounts(line, own)
        assert str(mount.own) == expected


def test_a_blank_in_a_path_is_octal() -> None:
    """As mountinfo writes it."""
    line = "33 24 0:29 / /my\\040groups rw - cgroup2 cgroup2 rw\n"
    (mount,) = parse_mounts(line, "0::/\n")
    assert str(mount.point) == "/my groups"


def group_v2(path: Path, controllers: str, handed_on: str) -> Path:
    """Make a folder with the files of a group of version 2."""
    path.mkdir()
    (path / "cgroup.procs").touch()
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").write_text(handed_on)
    return path


def test_the_nearest_group_that_hands_controllers_on(tmp_path: Path) -> None:
    """A group that hands nothing on is passed over for the one above it."""
    top = group_v2(tmp_path / "user@1000", "", "memory pids")
    own = group_v2(top / "session", "", "")
    mount = Mount(keeper=Keeper.CGROUP_V2, controllers=frozenset(), point=tmp_path, own=own)
    (hierarchy,) = find_hierarchies([mount])
    assert hierarchy.parent == top
    assert hierarchy.limits == {Limit.MEMORY, Limit.PIDS}


@pytest.mark.parametrize("controllers", ["cpuset io", ""])
def test_nothing_is_kept_where_nothing_is_handed_on(tmp_path: Path, controllers: str) -> None:
    """Controllers of no use to us are left alone."""
    own = group_v2(tmp_path / "own", controllers, controllers)
    mount = Mount(keeper=Keeper.CGROUP_V2, controllers=frozenset(), point=tmp_path / "own", own=own)
    assert find_hierarchies([mount]) == []
    assert (own / "cgroup.subtree_control").read_text() == controllers


def test_a_bound_is_kept_in_one_tree(tmp_path: Path) -> None:
    """The first tree that keeps it is enough."""
    own = group_v2(tmp_path / "own", "memory", "memory")
    v1 = Mount(
        keeper=Keeper.CGROUP_V1,
        controllers=frozenset({"memory"}),
        point=tmp_path,
        own=tmp_path,
    )
    v2 = Mount(keeper=Keeper.CGROUP_V2, controllers=frozenset(), point=own, own=own)
    assert [found.keeper for found in find_hierarchies([v1, v2])] == [Keeper.CGROUP_V1]
