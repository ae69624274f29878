"""How it is told that nobody has touched the folders of a workspace."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.filesystem import fingerprint as module
from sandbox.filesystem.fingerprint import (
    Fingerprint,
    Marked,
    after_move,
    fingerprint,
)
from sandbox.filesystem.workspace import Workspace
from tests.waiting import wait_until

_SECOND_NS = 1_000_000_000


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Folders that were just made."""
    return Workspace(tmp_path / "a-1", None).create()


def is_unchanged(workspace: Workspace, marks: Fingerprint, since: float) -> bool:
    """Tell whether all folders of a workspace are as they were marked."""
    root_fd = os.open(workspace.path.parent, os.O_PATH)
    try:
        return module.is_unchanged(workspace, marks, since, root_fd=root_fd)
    finally:
        os.close(root_fd)


def _later(marks: Fingerprint) -> float:
    """Return a moment from which on every change of the folders has another time than they have now."""
    return max(marked.read_at for marked in marks.values()) + 1


def _as_if(marks: Fingerprint, *, entries: list[str] | None = None) -> Fingerprint:
    """Return the marks of a tmp that had no attributes, or other entries, when it was marked, but the same times."""
    (times, names, _, *rest), read_at, _ = marks["tmp"]
    mark = (times, names if entries is None else entries, [], *rest)
    return {**marks, "tmp": Marked(mark, read_at)}  # type: ignore[arg-type]


def _time_of_a_change(folder: Path) -> int:
    """Return the time of a change that is made now."""
    folder.chmod(0o700)
    return folder.stat().st_ctime_ns


@pytest.mark.parametrize("path", ["", "job", "job/src", "job/ci", "home", "tmp"])
@pytest.mark.parametrize("since", ["at once", "later"])
def test_who_made_and_removed_an_entry_is_found(
    workspace: Workspace, path: str, since: str
) -> None:
    """Whether the command began at once or later."""
    marks = fingerprint(workspace)
    assert is_unchanged(workspace, marks, time.monotonic())
    began = time.monotonic() if since == "at once" else _later(marks)
    assert is_unchanged(workspace, marks, began)
    folder = workspace.path / path

    before = folder.stat()
    while folder.stat().st_ctime_ns == before.st_ctime_ns:  # ticks of some milliseconds
        (folder / "entry").touch()
        (folder / "entry").unlink()
    os.utime(folder, ns=(0, before.st_mtime_ns))

    assert not is_unchanged(workspace, marks, began)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o755),
        lambda path: (path / "left").touch(),
        lambda path: (path.rename(path.with_name("old")), path.mkdir(mode=0o700)),
        lambda path: (path.rename(path.with_name("old")), path.symlink_to("old")),
        lambda path: path.rmdir(),
    ],
    ids=["mode", "entry", "another one", "a link", "removed"],
)
def test_every_change_is_found_by_time(
    workspace: Workspace, change: Callable[[Path], object]
) -> None:
    """Also of folders that were made long ago."""
    marks = fingerprint(workspace)

    change(workspace.tmp)

    assert not is_unchanged(workspace, marks, _later(marks))


def test_a_folder_that_was_just_made_is_looked_into(workspace: Workspace) -> None:
    """Its time may be that of a change that came after the mark; so it is where nobody knows when a command began."""
    marks = fingerprint(workspace)
    hidden = _as_if(marks, entries=["gone"])

    for since in (-math.inf, marks["tmp"].read_at, marks["tmp"].read_at + 0.1):
        assert not is_unchanged(workspace, hidden, since)

    assert is_unchanged(workspace, hidden, _later(marks)), "time tells alone by now"


def test_a_folder_with_attributes_is_looked_into(workspace: Workspace) -> None:
    """Some file systems set one without the time of the change; those that are not known may be such ones."""
    try:
        os.setxattr(workspace.tmp, "user.left", b"x")
    except OSError:
        pytest.skip("this file system has no attributes")
    marks = fingerprint(workspace)
    assert is_unchanged(workspace, marks, _later(marks))

    assert not is_unchanged(workspace, _as_if(marks), _later(marks))


@pytest.mark.parametrize("change", [os.setxattr, lambda path, name, _: os.removexattr(path, name)])
def test_attributes_move_the_time_where_it_is_said(
    workspace: Workspace, change: Callable[[Path, str, bytes], None]
) -> None:
    """So there they need not be looked for."""
    marks = fingerprint(workspace)
    if not all(marked.times_tell for marked in marks.values()):
        pytest.skip("nobody says so of this file system")
    os.setxattr(workspace.tmp, "user.left", b"x")
    before = workspace.tmp.stat().st_ctime_ns
    # Times move in ticks of some milliseconds.
    wait_until(lambda: _time_of_a_change(workspace.home) != before, 5, "the next tick")

    change(workspace.tmp, "user.left", b"y")

    assert workspace.tmp.stat().st_ctime_ns != before


def test_a_folder_of_roots_is_told_by_what_a_new_name_does_not_change(workspace: Workspace) -> None:
    """No job can change or replace it; an entry of somebody of the host is found nevertheless."""
    marks = fingerprint(workspace)
    moved = Workspace(workspace.path.with_name("a-2"), os.geteuid())
    workspace.path.rename(moved.path)
    marks = after_move(marks, moved)
    assert is_unchanged(moved, marks, _later(marks))

    (moved.path / "left").touch()
    (moved.path / "left").unlink()

    assert not is_unchanged(moved, marks, _later(marks))


def test_times_of_whole_seconds_tell_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that keeps no better ones shows the same time for a whole second."""
    really = os.stat

    def coarse(path: str, **how: Any) -> os.stat_result:
        found = really(path, **how)
        times = {"st_ctime_ns": found.st_ctime_ns // _SECOND_NS * _SECOND_NS}
        times["st_mtime_ns"] = found.st_mtime_ns
        return os.stat_result(tuple(found), times)

    marks = fingerprint(workspace)
    monkeypatch.setattr(os, "stat", coarse)
    whole = {}
    for path, (mark, read_at, _) in marks.items():
        (identity, change), *rest = mark
        times = (identity, change // _SECOND_NS * _SECOND_NS)
        whole[path] = Marked((times, *rest), read_at)  # type: ignore[arg-type]

    # What the look inside finds is not rounded.
    assert not is_unchanged(workspace, whole, _later(marks))
