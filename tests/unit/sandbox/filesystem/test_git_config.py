"""What a git configuration names is found as git finds it; what git would not understand names nothing."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.filesystem.git_config import Named, named_in

HOOKS = [
    "[core]\n\thooksPath = .husky\n",
    "[CORE]\nHOOKSPATH=.husky\n",
    "[core] hooksPath = .husky # why\n",
    '[core]\nhooksPath = ".husky" ; why\n',
    '[core]\nhooksPath = .h"us"ky\n',
    "[core]\n\thooksPath = .hu\\\nsky\n",
    "[alias]\nx = y\n[core]\nbare = false\n hookspath   =   .husky   \n",
]
OTHERS = [
    "",
    "[core]\n# hooksPath = .husky\n",
    "[user]\nhooksPath = .husky\n",
    '[core "x"]\n[other]\nhooksPath = .husky\n',
    "hooksPath = .husky\n",
]


@pytest.mark.parametrize("text", HOOKS)
def test_a_folder_of_hooks(text, tmp_path):
    """In every spelling that git takes; git itself says so."""
    assert named_in(text) == Named((".husky",), (), "")
    assert git_reads(text, tmp_path) == ".husky"


@pytest.mark.parametrize("text", OTHERS)
def test_no_folder_of_hooks(text):
    """Comments, and variables of other sections."""
    assert named_in(text).hooks == ()


def test_other_files():
    """Whatever the condition; the last worktree counts."""
    text = (
        '[include]\npath = a\npath = "b c"\n[includeIf "gitdir:/x]y/"]\npath = d\n'
        "[core]\nworktree = ../..\nworktree = ../s\n"
    )
    assert named_in(text) == Named((), ("a", "b c", "d"), "../s")


@settings(max_examples=300, deadline=None)
@given(st.text('[]core"\\ \n\t=#;hooksPath.xé\0', max_size=80))
def test_nothing_is_too_odd(text):
    """A job has written it."""
    named_in(text)


def git_reads(text, folder) -> str:
    """Return what git itself finds."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    path = folder / "config"
    path.write_text(text)
    argv = [git, "config", "--file", str(path), "core.hooksPath"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
