"""How it is told that nobody has touched the folders of a workspace."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.filesystem.fingerprint import Fingerprint, fingerprint, is_unchanged
from sandbox.filesystem.workspace import Workspace

_SECOND_NS = 1_000_000_000


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Folders that were just made."""
    return Workspace(tmp_path / "a-1", None).create()


def _hiding(marks: Fingerprint, path: str, change_ns: int) -> Fingerprint:
    """Return the marks of a folder that had another entry when it was marked, but the same times."""
    (identity, _), names, *rest = marks[path]
    return {**marks, path: ((identity, change_ns), [*names, "gone"], *rest)}  # type: ignore[dict-item]


def _settle(workspace: Workspace, marks: Fingerprint) -> int:
    """Return a moment from which on every change of the folders has another time than they have now."""
    return max(mark[0][1] for mark in marks.values()) + _SECOND_NS


@pytest.mark.parametrize("path", ["", "job", "job/src", "job/ci", "home", "tmp"])
@pytest.mark.parametrize("since", ["at once", "later"])
def test_who_made_and_removed_an_entry_is_found(
    workspace: Workspace, path: str, since: str
) -> None:
    """Whether the command began at once or later."""
    marks = fingerprint(workspace)
    assert is_unchanged(workspace, marks, time.time_ns())
    since_ns = time.time_ns() if since == "at once" else _settle(workspace, marks)

    before = workspace.path.joinpath(path).stat().st_ctime_ns
    while workspace.path.joinpath(path).stat().st_ctime_ns == before:  # ticks of some milliseconds
        entry = workspace.path / path / "entry"
        entry.touch()
        entry.unlink()
    os.utime(workspace.path / path, ns=(0, marks[path][0][0][-1]))

    assert not is_unchanged(workspace, marks, since_ns)


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

    assert not is_unchanged(workspace, marks, _settle(workspace, marks))


def test_a_folder_that_was_just_made_is_looked_into(workspace: Workspace) -> None:
    """Its time may be that of a change that came after the mark."""
    marks = fingerprint(workspace)
    made = marks["tmp"][0][1]

    hidden = _hiding(marks, "tmp", made)

    assert not is_unchanged(workspace, hidden, made + _SECOND_NS // 100)
    assert is_unchanged(workspace, hidden, made + _SECOND_NS), "time tells alone by now"


def test_a_clock_that_was_set_back_tells_nothing(workspace: Workspace) -> None:
    """A change after that may come at the very time of the mark."""
    marks = fingerprint(workspace)
    made = marks["tmp"][0][1]

    assert not is_unchanged(workspace, _hiding(marks, "tmp", made), made - _SECOND_NS)


def test_times_of_whole_seconds_tell_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that keeps no better ones shows the same time for a whole second."""
    marks = fingerprint(workspace)
    really = os.lstat

    def coarse(path: str) -> os.stat_result:
        found = really(path)
        times = {"st_ctime_ns": found.st_ctime_ns // _SECOND_NS * _SECOND_NS}
        times["st_mtime_ns"] = found.st_mtime_ns
        return os.stat_result(tuple(found), times)

    monkeypatch.setattr(os, "lstat", coarse)
    made = marks["tmp"][0][1] // _SECOND_NS * _SECOND_NS
    whole = {
        path: ((mark[0][0], mark[0][1] // _SECOND_NS * _SECOND_NS), *mark[1:])
        for path, mark in marks.items()
    }

    assert not is_unchanged(workspace, whole, made + 10 * _SECOND_NS)
