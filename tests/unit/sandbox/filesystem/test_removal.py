"""Removing trees that resist, or that somebody else removes too."""

from __future__ import annotations

import os
import threading

import pytest

from sandbox.filesystem import removal
from sandbox.filesystem.removal import is_mount, remove_tree


@pytest.fixture
def folder(tmp_path):
    """An open folder."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_removal_follows_no_link(tmp_path, folder):
    """What a link leads to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "a" / "b" / ".removed-1").mkdir()
    (tree / ".removed-1").mkdir()
    remove_tree(folder, "tree")
    remove_tree(folder, "tree")
    assert [each.name for each in tmp_path.iterdir()] == ["outside"]
    assert (outside / "f").exists()


@pytest.mark.parametrize("call", ["unlink", "rmdir", "rename", "open"])
def test_what_vanishes_meanwhile_is_removed(tmp_path, folder, monkeypatch, call):
    """Another sweeper that is one step ahead at every step does no harm."""
    (tmp_path / "tree" / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "f").touch()
    (tmp_path / "tree" / "a" / "b" / "g").touch()
    original = getattr(os, call)

    def overtaken(path, *args, **options):
        where = options.get("src_dir_fd", options.get("dir_fd"))
        with monkeypatch.context() as plain:
            plain.setattr(os, call, original)
            if where is not None and path != "tree":
                remove_tree(where, path)
            return original(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, overtaken)
        remove_tree(folder, "tree")
    assert list(tmp_path.iterdir()) == []


def test_two_sweepers_at_once(tmp_path, folder):
    """Two who remove the same tree both succeed."""
    for number in range(30):
        deep = tmp_path / f"tree-{number}"
        for level in range(20):
            deep = deep / f"d{level}"
            deep.mkdir(parents=True)
            (deep / "f").touch()
    errors: list[OSError] = []

    def sweep() -> None:
        try:
            for number in range(30):
                remove_tree(folder, f"tree-{number}")
        except OSError as error:
            errors.append(error)

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    for sweeper in sweepers:
        sweeper.join()
    assert errors == []
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_is_an_error(tmp_path, folder, monkeypatch):
    """A folder that stays is told, and does not make the removal try for ever."""
    (tmp_path / "tree" / "stuck").mkdir(parents=True)
    original = os.rmdir

    def refuse(path, **options):
        if path != "stuck":
            original(path, **options)

    monkeypatch.setattr(os, "rmdir", refuse)
    with pytest.raises(OSError, match="not empty"):
        remove_tree(folder, "tree")


def test_a_mount_is_known_by_its_id(tmp_path, folder):
    """What is mounted into a tree is not the tree's, so its content is left."""
    (tmp_path / "below").mkdir()
    for parent, below, expected in ((folder, tmp_path / "below", False), (None, "/proc", True)):
        root = os.open("/", os.O_RDONLY) if parent is None else os.dup(parent)
        fd = os.open(below, os.O_RDONLY)
        try:
            assert is_mount(root, fd) is expected
        finally:
            os.close(fd)
            os.close(root)


def test_a_folder_of_many_files_is_read_in_pieces(tmp_path, folder, monkeypatch):
    """A job may make millions: what is known of them at a time takes little memory, and none is forgotten."""
    monkeypatch.setattr(removal, "_BATCH", 10)
    top = tmp_path / "many"
    (top / "below").mkdir(parents=True)
    for each in (top, top / "below"):
        for number in range(105):
            (each / f"file-{number}").touch()
        for number in range(25):
            (each / f"folder-{number}").mkdir()
    remove_tree(folder, "many")
    assert not top.exists()
