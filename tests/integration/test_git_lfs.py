"""Large files of git-lfs: fetched once for all jobs, left as pointers, or demanded."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent_runner.errors import SourceError
from agent_runner.job_spec import SourceSpec
from agent_runner.source import git_settings
from tests.integration.git_servers import Repository, serve
from tests.integration.sources import Desk

HAS_LFS = shutil.which("git-lfs") is not None
PASSWORD = "pw-" + "y9" * 10
POINTER = "version https://git-lfs"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repo")
    if HAS_LFS:
        for name, value in (
            ("process", "git-lfs filter-process"),
            ("clean", "git-lfs clean -- %f"),
            ("smudge", "git-lfs smudge -- %f"),
        ):
            made.git("config", f"filter.lfs.{name}", value)
    made.commit(**{".gitattributes": "*.bin filter=lfs -text\n", "big.bin": "x" * 5000})
    return made


@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
async def test_large_files_come_once(tmp_path: Path, repository: Repository) -> None:
    """The second job takes them from the first; a password is sent for them too."""
    assert POINTER in repository.git("show", "HEAD:big.bin")
    desk = Desk(tmp_path / "desk")
    with serve(repository.path.parent, "me", PASSWORD) as server:
        plain = SourceSpec(kind="git", url=server.url(repository))
        for source in (plain, replace(plain, lfs="on", depth=1)):
            await desk.prepare(source, source_credentials=f"me:{PASSWORD}")
            assert desk.text("big.bin") == "x" * 5000
            assert len(server.large) == 1
            assert not list((desk.tree / ".git").glob("lfs/objects/*"))


@pytest.mark.skipif(not HAS_LFS, reason="needs git-lfs")
async def test_large_files_of_this_host(tmp_path: Path, repository: Repository) -> None:
    """They are copied, or left, or missed."""
    desk = Desk(tmp_path / "desk")
    await desk.git(repository.url)
    assert desk.text("big.bin") == "x" * 5000
    await desk.git(repository.url, lfs="off")
    assert desk.text("big.bin").startswith(POINTER)
    shutil.rmtree(repository.path / ".git" / "lfs")
    with pytest.raises(SourceError, match=r"git checkout failed: .*big\.bin"):
        await desk.git(repository.url)
    assert desk.left() == []


async def test_without_git_lfs(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pointers stay, unless the job needs more."""
    monkeypatch.setattr(git_settings, "PATH", os.fspath(tmp_path))
    desk = Desk(tmp_path / "desk")
    await desk.git(repository.url)
    with pytest.raises(SourceError, match="git-lfs is not installed"):
        await desk.git(repository.url, lfs="on")
