"""Sources that are copied: uncommitted work comes along, what .gitignore names does not."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent_runner.errors import SourceError
from agent_runner.job_spec import SourceSpec
from tests.integration.git_servers import Repository
from tests.integration.sources import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repo")
    made.commit(
        **{
            ".gitignore": "*.log\n/build/\nnode_modules\n!keep.log\n",
            "tracked.log": "t",
            "build__tracked": "t",
            "service__main": "m",
            "service__.gitignore": "local\n",
        }
    )
    return made


def write(repository: Repository, *names: str) -> None:
    for name in names:
        path = repository.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


async def copied(desk: Desk, path: Path) -> set[str]:
    await desk.prepare(SourceSpec(kind="copy", path=str(path)))
    assert desk.left() == []
    return {name.removeprefix("src/") for name in desk.files if ".git/" not in name}


async def test_rules_of_the_work_tree(desk: Desk, repository: Repository) -> None:
    """Ignored files stay; tracked ones, uncommitted ones and changed ones come, wherever the rule stands."""
    write(
        repository, "new", "x.log", "keep.log", "build/out", "a/node_modules/b/c", "service/local"
    )
    write(repository, "service/new", "line\nbreak", "tracked.log", "ünï")
    (repository.path / "only-ignored").mkdir()
    write(repository, "only-ignored/x.log")

    assert await copied(desk, repository.path) == {
        *(".gitignore", "tracked.log", "build/tracked", "service/main", "service/.gitignore"),
        *("new", "keep.log", "service/new", "line\nbreak", "ünï"),
    }
    assert desk.files["src/tracked.log"] == b"x"
    assert "src/.git/HEAD" in desk.files


async def test_a_folder_of_a_work_tree(desk: Desk, repository: Repository) -> None:
    """The rules above it hold in it."""
    write(repository, "service/new", "service/x.log", "service/local")
    assert await copied(desk, repository.path / "service") == {".gitignore", "main", "new"}


async def test_an_ignored_folder_itself(desk: Desk, repository: Repository) -> None:
    """Whoever names a folder of build results wants it."""
    write(repository, "build/out", "build/x.log", "a/node_modules/b")
    assert await copied(desk, repository.path / "a" / "node_modules") == {"b"}


async def test_a_folder_deep_in_an_ignored_one(desk: Desk, repository: Repository) -> None:
    """However far below what is ignored it lies."""
    (repository.path / ".gitignore").write_text("/out/\n")
    write(repository, "out/a/b/c", "out/a/b/d/e", "out/a/other")
    assert await copied(desk, repository.path / "out" / "a" / "b") == {"c", "d/e"}


async def test_a_folder_that_is_no_repository(desk: Desk, tmp_path: Path) -> None:
    """Its own .gitignore counts all the same; without one everything is copied."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in ("a", "b.log"):
        (folder / name).write_text("x")
    assert await copied(desk, folder) == {"a", "b.log"}
    (folder / ".gitignore").write_text("*.log\n")
    assert await copied(desk, folder) == {"a", ".gitignore"}


async def test_rules_of_one_repository(desk: Desk, repository: Repository) -> None:
    """.git/info/exclude counts; the caller's own rules do not."""
    exclude = repository.path / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_text("mine\n")
    repository.git("config", "core.excludesFile", str(repository.path / "elsewhere"))
    write(repository, "mine", "other")
    (repository.path / "elsewhere").write_text("other\n")

    found = await copied(desk, repository.path)

    assert "mine" not in found
    assert "other" in found


async def test_a_linked_work_tree(desk: Desk, repository: Repository, tmp_path: Path) -> None:
    """Its list of tracked files is found."""
    tree = tmp_path / "linked"
    repository.git("worktree", "add", "-q", str(tree))
    (tree / "x.log").write_text("x")
    found = await copied(desk, tree)
    assert "tracked.log" in found
    assert "x.log" not in found


async def test_a_damaged_index(desk: Desk, repository: Repository) -> None:
    """It is an error with git's own words."""
    (repository.path / ".git" / "index").write_bytes(b"garbage")
    with pytest.raises(SourceError, match=r"source: git ls-files failed: .*index"):
        await copied(desk, repository.path)


@pytest.mark.parametrize("kind", ["missing", "file", "socket"])
async def test_what_cannot_be_copied(desk: Desk, tmp_path: Path, kind: str) -> None:
    """It is named."""
    path = tmp_path / "odd"
    if kind == "file":
        path.write_text("x")
    elif kind == "socket":
        path.mkdir()
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.fspath(path / "s"))
    with pytest.raises(SourceError, match="odd"):
        await copied(desk, path)


async def test_a_link_to_the_source(desk: Desk, repository: Repository, tmp_path: Path) -> None:
    """It is followed, as far as the folder itself goes."""
    (tmp_path / "link").symlink_to(repository.path)
    write(repository, "x.log")
    found = await copied(desk, tmp_path / "link")
    assert "service/main" in found
    assert "x.log" not in found
