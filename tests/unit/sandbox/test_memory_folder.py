"""Folders on a file system in memory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.filesystem.memory_folder import MEMORY, open_memory_folder
from sandbox.filesystem.system_files import EtcCopy

OPEN = (
    "import sys; from sandbox.filesystem.memory_folder import open_memory_folder;"
    "print(open_memory_folder(), flush=True); sys.stdin.read()"
)


def test_only_its_owner_can_write_it():
    """Jobs have other users, and pass it only."""
    path = open_memory_folder()
    assert path is not None
    try:
        assert path.parent == MEMORY
        assert stat.S_IMODE(path.stat().st_mode) == 0o711
    finally:
        path.rmdir()


def test_what_a_killed_process_left_is_removed():
    """And not that of one that lives."""
    with (
        subprocess.Popen([sys.executable, "-c", OPEN], stdin=-1, stdout=-1, text=True) as killed,
        subprocess.Popen([sys.executable, "-c", OPEN], stdin=-1, stdout=-1, text=True) as alive,
    ):
        assert killed.stdout is not None
        assert alive.stdout is not None
        left, kept = (Path(out.readline().strip()) for out in (killed.stdout, alive.stdout))
        (left / "etc").mkdir()
        killed.kill()
        killed.wait()
        mine = open_memory_folder()
        try:
            assert not left.exists()
            assert kept.is_dir()
        finally:
            assert mine is not None
            mine.rmdir()
            kept.rmdir()


@pytest.mark.parametrize("mode", [0o777, 0o755, None])
def test_nothing_is_made_where_others_could_replace_it(tmp_path, mode):
    """Without the sticky bit, or without the folder; then the copy stands where it may."""
    memory = tmp_path / "memory"
    if mode is not None:
        memory.mkdir()
        memory.chmod(mode)
    assert open_memory_folder(memory) is None

    copy = EtcCopy(tmp_path / "fallback" / "etc", memory=memory)
    copy.begin()
    assert copy.path == tmp_path / "fallback" / "etc"
    assert (copy.path / "passwd").is_file()
    copy.remove()
    assert copy.path.is_dir()


def test_a_copy_in_memory_is_whole_and_goes_with_its_owner(tmp_path):
    """It is made anew where it was removed."""
    copy = EtcCopy(tmp_path / "etc")
    for _ in range(2):
        copy.begin()
        try:
            copy.refresh()
            assert copy.path.is_relative_to(MEMORY)
            assert os.readlink(copy.path / "alternatives" / "awk") == os.readlink(
                "/etc/alternatives/awk"
            )
        finally:
            copy.remove()
        assert not copy.path.parent.exists()
    assert not (tmp_path / "etc").exists()
