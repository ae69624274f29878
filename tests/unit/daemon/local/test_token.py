"""The token and the lock of a state directory."""

from __future__ import annotations

import os

import pytest

from daemon.errors import StateDirError
from daemon.local.lock import take_lock
from daemon.local.token import ensure_token
from daemon.paths import StateDir


@pytest.fixture
def state(tmp_path):
    made = StateDir(tmp_path / "state", tmp_path / "run")
    made.root.mkdir()
    return made


def test_a_token_is_made_once(state):
    """Long, private, the same the next time."""
    token = ensure_token(state)
    assert len(token) >= 43
    assert state.token.stat().st_mode & 0o777 == 0o600
    assert ensure_token(state) == token


def test_an_empty_token_is_replaced(state):
    """A crash of an earlier product left nothing in it."""
    state.token.touch(mode=0o600)
    assert ensure_token(state)


@pytest.mark.parametrize("prepare", ["open", "link", "folder"])
def test_a_token_that_is_not_private_is_refused(state, prepare):
    """Readable by others, a link, or no file at all: one clear line that names it."""
    if prepare == "open":
        state.token.write_text("guess")
        state.token.chmod(0o644)
    elif prepare == "link":
        state.token.symlink_to("/etc/hostname")
    else:
        state.token.mkdir()
    with pytest.raises(StateDirError, match=str(state.token)):
        ensure_token(state)


def test_a_lock_is_held_by_one(state):
    """Until its descriptor, and every copy of it, is closed."""
    first = take_lock(state)
    assert first is not None
    copy = os.dup(first)
    assert take_lock(state) is None
    os.close(first)
    assert take_lock(state) is None
    os.close(copy)
    again = take_lock(state)
    assert again is not None
    os.close(again)
