"""Reading the logs of the processes."""

from __future__ import annotations

import itertools

import pytest

from daemon.errors import NotRunningError
from daemon.local.log_files import last_lines, local_logs
from daemon.logs import rotated
from daemon.paths import StateDir


@pytest.fixture
def state(tmp_path):
    made = StateDir(tmp_path / "state", tmp_path / "run")
    (made.root / "logs").mkdir(parents=True)
    return made


def test_the_last_lines_reach_into_older_parts(state):
    """As many as asked for, oldest first, across rotation."""
    path = state.log_file("daemon")
    rotated(path, 2).write_text("1\n2\n")
    rotated(path, 1).write_text("3\n4\n")
    path.write_text("5\n")
    assert last_lines(path, 4) == ["2", "3", "4", "5"]
    assert last_lines(path, 1) == ["5"]
    assert last_lines(path, 0) == []
    assert last_lines(path, 100) == ["1", "2", "3", "4", "5"]


def test_long_lines_are_read_whole(state):
    """A line larger than a block."""
    path = state.log_file("daemon")
    path.write_text("a" * 200_000 + "\n" + "b" * 200_000 + "\n")
    assert [len(line) for line in last_lines(path, 2)] == [200_000, 200_000]


def test_a_log_that_is_not_there_is_not_running(state):
    """Without follow there is nothing to wait for."""
    with pytest.raises(NotRunningError):
        list(local_logs(state, "daemon", 10, False))
    state.log_file("daemon").touch()
    assert list(local_logs(state, "daemon", 10, False)) == []


def test_following_sees_every_line_once_over_a_rotation(state):
    """Old lines, new lines, the end of the old file, then the new file; a half line waits for its end."""
    path = state.log_file("daemon")
    path.write_text("0\n1\n2\nha")
    lines = local_logs(state, "daemon", 2, True)
    assert list(itertools.islice(lines, 2)) == ["1\n", "2\n"]
    with path.open("a") as file:
        file.write("lf\n3\n")
    assert list(itertools.islice(lines, 2)) == ["half\n", "3\n"]
    with path.open("a") as file:
        file.write("4\n")
    path.replace(rotated(path, 1))
    path.write_text("5\n")
    assert list(itertools.islice(lines, 2)) == ["4\n", "5\n"]
    lines.close()


def test_following_waits_for_a_file(state, monkeypatch):
    """A process that has written nothing yet."""
    path = state.log_file("daemon")
    monkeypatch.setattr("time.sleep", lambda _: path.write_text("first\n"))
    lines = local_logs(state, "daemon", 2, True)
    assert next(lines) == "first\n"
    lines.close()


def test_following_without_old_lines_shows_new_ones_only(state):
    """Zero lines means none, not all."""
    path = state.log_file("daemon")
    path.write_text("old\n")
    rotated(path, 1).write_text("older\n")
    waited = iter([lambda: path.open("a").close(), lambda: path.write_text("old\nnew\n")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda _: next(waited)())
        lines = local_logs(state, "daemon", 0, True)
        assert next(lines) == "new\n"
        lines.close()
