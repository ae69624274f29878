"""The place that the folders of a job take is counted without following anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sandbox.bounds.disk_use import DiskUse
from sandbox.limits import GIB, MIB


def used(folder: Path, enough: int = GIB) -> int:
    """Return what a folder takes."""
    use = DiskUse(enough)
    use.add_folder(folder)
    return use.total


def test_blocks_count_not_lengths(tmp_path: Path) -> None:
    """A sparse file takes what it has, a small one a block, and every name a little."""
    (tmp_path / "a").write_bytes(b"x" * MIB)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(GIB)
    assert MIB <= used(tmp_path) < MIB + 64 * 1024


def test_hard_links_count_once(tmp_path: Path) -> None:
    """However many names a file has."""
    (tmp_path / "a").write_bytes(b"x" * MIB)
    for number in range(10):
        os.link(tmp_path / "a", tmp_path / f"link{number}")
    assert used(tmp_path) < 2 * MIB


def test_nothing_is_followed(tmp_path: Path) -> None:
    """Neither a link nor what is not there."""
    (tmp_path / "job").mkdir()
    (tmp_path / "big").write_bytes(b"x" * MIB)
    (tmp_path / "job" / "up").symlink_to("..")
    assert used(tmp_path / "job") < 64 * 1024
    assert used(tmp_path / "none") == 0
    assert used(tmp_path / "job" / "up") == 0


def test_deep_trees_are_counted(tmp_path: Path) -> None:
    """What is past the longest path is found."""
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 60, dir_fd=fd)
        below = os.open("d" * 60, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    file = os.open("file", os.O_WRONLY, dir_fd=fd)
    os.write(file, b"x" * MIB)
    os.close(file)
    os.close(fd)
    assert used(tmp_path) > MIB


def test_enough_is_enough(tmp_path: Path) -> None:
    """Counting stops soon after the bound."""
    for number in range(2000):
        (tmp_path / f"f{number}").touch()
    assert 10_000 < used(tmp_path, 10_000) < 20_000


def test_files_without_a_name_count(tmp_path: Path) -> None:
    """As long as a process holds them open."""
    with (tmp_path / "gone").open("wb") as file:
        file.write(b"x" * MIB)
        file.flush()
        (tmp_path / "gone").unlink()
        use = DiskUse(GIB)
        use.add_unlinked([os.getpid(), 2**22 + 1], tmp_path.stat().st_dev)
        assert use.total >= MIB


def test_a_large_tree_takes_no_second(tmp_path: Path) -> None:
    """Ten thousand files are counted in far less CPU time than the pause between two looks."""
    for number in range(100):
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        for name in range(100):
            (folder / f"f{name}").touch()
    began = time.process_time()
    assert used(tmp_path) > 10_000 * 512
    assert time.process_time() - began < 1
