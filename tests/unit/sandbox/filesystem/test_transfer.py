"""Copying trees and naming paths."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandbox.errors import TransferRefusedError
from sandbox.filesystem.transfer import TreeCopy
from sandbox.job_path import path_parts


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "..", "a\0b", "/"])
def test_paths_that_leave_are_refused(path):
    """Only names below the job root are accepted."""
    with pytest.raises(TransferRefusedError):
        path_parts(path)


def test_paths_below_are_split():
    """Dots and doubled slashes mean nothing."""
    assert path_parts("src//./a b/c") == ("src", "a b", "c")
    assert path_parts(".") == ()


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


@pytest.mark.parametrize("in_ranges", [True, False])
def test_holes_stay_holes(tmp_path, monkeypatch, in_ranges):
    """A file of 32 GiB with three blocks in it is copied as that, by whatever call the file system has."""
    if not in_ranges:

        def refuse(*_: int) -> int:
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    with (source / "sparse").open("wb") as file:
        for place in (0, 1 << 30, (1 << 35) - 4096):
            file.seek(place)
            file.write(b"x" * 4096)
    (source / "empty").write_bytes(b"")
    with (source / "hole").open("wb") as file:
        file.truncate(1 << 35)
    (source / "full").write_bytes(b"y" * 10_000)
    fd = os.open(target, os.O_RDONLY)
    try:
        TreeCopy(owner=None, skip=(0, 0)).run(source, fd)
    finally:
        os.close(fd)
    for each in source.iterdir():
        assert (target / each.name).stat().st_size == each.stat().st_size
    assert (target / "full").read_bytes() == b"y" * 10_000
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    assert (target / "hole").stat().st_blocks * 512 < 1 << 20
    with (target / "sparse").open("rb") as file:
        for place in (0, 1 << 30, (1 << 35) - 4096):
            file.seek(place)
            assert file.read(4096) == b"x" * 4096


def test_a_file_whose_size_is_not_told_is_copied(tmp_path):
    """As those of /proc are."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        TreeCopy(owner=None, skip=(0, 0)).run(Path("/proc/sys/fs/mqueue"), fd)
    finally:
        os.close(fd)
    assert (tmp_path / "msg_max").read_text().strip().isdecimal()
