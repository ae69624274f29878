"""The folders of one sandbox."""

from __future__ import annotations

import errno
import os

import pytest

from sandbox.filesystem.workspace import Workspace


def test_a_workspace_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    """A disk that fills up half way costs no name and no folder."""
    calls = iter(range(3))

    def chown(*_):
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(OSError, match="No space left"):
        Workspace(tmp_path / "a-1", 64123).create()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_keeps_its_folder(tmp_path):
    """Refusing a second workspace does not remove the first."""
    workspace = Workspace(tmp_path / "a-1", None)
    workspace.create()
    with pytest.raises(FileExistsError):
        workspace.create()
    assert workspace.ci.is_dir()
