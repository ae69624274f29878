"""Which folders of a lane are used again."""

from __future__ import annotations

import re
from pathlib import Path

from sandbox.filesystem.workspace_pool import WorkspacePool


def test_an_untouched_workspace_is_looked_at_once_and_used_again(tmp_path: Path) -> None:
    """What was seen after the command counts when the folders are given back."""
    pool = WorkspacePool(tmp_path, None)
    workspace = pool.obtain("a-1", returnable=True)
    folder = workspace.job.stat().st_ino
    assert pool.is_untouched(workspace)

    assert pool.give_back(workspace)

    assert pool.obtain("a-2", returnable=True).job.stat().st_ino == folder


def test_a_folder_that_rests_has_a_name_that_nobody_can_guess(tmp_path: Path) -> None:
    """Not that of a sandbox, and not that of other folders."""
    pool = WorkspacePool(tmp_path, None)
    workspaces = [pool.obtain(name, returnable=True) for name in ("a-1", "a-2")]
    assert all(pool.give_back(workspace) for workspace in workspaces)

    names = set(pool.spares())

    assert len(names) == 2
    assert names == {folder.name for folder in tmp_path.iterdir()}
    assert all(re.fullmatch(r"\.spare-[0-9a-f]{16}", name) for name in names)


def test_the_next_command_is_looked_after_anew(tmp_path: Path) -> None:
    """A second command of a sandbox may touch what the first one left alone."""
    pool = WorkspacePool(tmp_path, None)
    workspace = pool.obtain("a-1", returnable=True)
    pool.enter(workspace)
    assert pool.is_untouched(workspace)

    pool.enter(workspace)
    (workspace.home / "left").touch()

    assert not pool.is_untouched(workspace)
    assert not pool.give_back(workspace)


def test_what_was_touched_stays_so(tmp_path: Path) -> None:
    """Whoever removes what was left does not make the folders new."""
    pool = WorkspacePool(tmp_path, None)
    workspace = pool.obtain("a-1", returnable=True)
    (workspace.tmp / "left").touch()
    assert not pool.is_untouched(workspace)

    (workspace.tmp / "left").unlink()

    assert not pool.give_back(workspace)


def test_what_two_commands_did_is_found_after_the_second(tmp_path: Path) -> None:
    """The first one is not forgotten because nobody looked after it."""
    pool = WorkspacePool(tmp_path, None)
    workspace = pool.obtain("a-1", returnable=True)
    pool.enter(workspace)
    (workspace.tmp / "left").touch()

    pool.enter(workspace)

    assert not pool.is_untouched(workspace)


def test_what_was_put_there_before_a_command_is_noticed(tmp_path: Path) -> None:
    """Also by somebody of the host, right after the folders were made; after a command nothing is certain any more."""
    pool = WorkspacePool(tmp_path, None)
    workspace = pool.obtain("a-1", returnable=True)
    assert pool.enter(workspace)
    assert not pool.enter(workspace)
    assert pool.is_untouched(workspace)
    assert pool.enter(workspace)

    checkout = pool.obtain("a-2", returnable=True)
    (checkout.job / "src/.git").write_text("gitdir: elsewhere\n")
    assert not pool.enter(checkout)
