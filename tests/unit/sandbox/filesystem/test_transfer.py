"""Copying trees and naming paths."""

from __future__ import annotations

import os

import pytest

from sandbox.errors import TransferRefusedError
from sandbox.filesystem.transfer import TreeCopy, components


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "..", "a\0b", "/"])
def test_paths_that_leave_are_refused(path):
    """Only names below the job root are accepted."""
    with pytest.raises(TransferRefusedError):
        components(path)


def test_paths_below_are_split():
    """Dots and doubled slashes mean nothing."""
    assert components("src//./a b/c") == ("src", "a b", "c")
    assert components(".") == ()


def test_the_folder_of_workspaces_is_skipped(tmp_path):
    """A source that holds all workspaces is not copied into itself."""
    source = tmp_path / "source"
    workspaces = source / "state" / "workspaces"
    target = workspaces / "a-1" / "job"
    target.mkdir(parents=True)
    (source / "f").write_bytes(b"x")
    identity = workspaces.stat()
    copy = TreeCopy(owner=None, skip=(identity.st_dev, identity.st_ino))
    fd = os.open(target, os.O_RDONLY)
    try:
        copy.run(source, fd)
        with pytest.raises(TransferRefusedError):
            copy.run(workspaces, fd)
    finally:
        os.close(fd)
    assert sorted(str(each.relative_to(target)) for each in target.rglob("*")) == ["f", "state"]
