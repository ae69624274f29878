"""Submodules of sources from git, wanted and hostile."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_runner.errors import SourceError
from tests.integration.git_servers import Repository, git, serve
from tests.integration.sources import Desk

PASSWORD = "pw-" + "x7" * 10


async def test_submodules(desk: Desk, repository: Repository, tmp_path: Path) -> None:
    """They come with the parent, at the commit it names, theirs too, and by relative URLs."""
    inner = Repository(tmp_path / "served" / "inner")
    inner.commit(i="inner")
    outer = Repository(tmp_path / "served" / "outer dir")
    outer.git("submodule", "add", "-q", inner.url, "deep/in ner")
    outer.commit(o="outer")
    repository.git("submodule", "add", "-q", "../outer dir", "out")
    repository.commit()
    outer.commit(o="newer")

    await desk.git(repository.url)
    assert not (desk.tree / "out" / "o").exists()
    await desk.git(repository.url, submodules=True)
    assert desk.text("out/o") == "outer"
    assert desk.text("out/deep/in ner/i") == "inner"
    assert git(desk.tree, "submodule", "status", "--recursive").count("\n") == 1
    assert git(desk.tree / "out", "config", "remote.origin.url") == outer.url
    before = git(desk.tree, "rev-parse", "HEAD:out")
    assert git(desk.tree / "out", "rev-parse", "HEAD") == before


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("url", "ext::sh -c 'touch PWNED'", "helper program|holds a space"),
        ("url", "-uPWNED", "option"),
        ("url", "file:///etc", "not appear to be|not a git|failed"),
        ("update", "!touch PWNED", "invalid value|failed"),
        ("path", "../../PWNED", "suspicious|failed|no url|No url"),
    ],
)
async def test_a_hostile_submodule(
    desk: Desk, repository: Repository, tmp_path: Path, *, setting: str, value: str, expected: str
) -> None:
    """What .gitmodules says is checked like what a job says."""
    other = Repository(tmp_path / "served" / "other")
    other.commit(x="y")
    repository.git("submodule", "add", "-q", other.url, "s")
    repository.git(
        "config",
        "-f",
        ".gitmodules",
        f"submodule.s.{setting}",
        value.replace("PWNED", f"{tmp_path}/PWNED") if "!" in value else value,
    )
    repository.commit()

    with pytest.raises(SourceError, match=expected):
        await desk.git(repository.url, submodules=True)
    assert not list(tmp_path.rglob("PWNED"))


async def test_a_submodule_over_http_may_not_name_a_file_of_the_host(
    desk: Desk, repository: Repository, tmp_path: Path
) -> None:
    """Else a repository could read what the agent-runner can."""
    other = Repository(tmp_path / "served" / "other")
    other.commit(x="y")
    repository.git("submodule", "add", "-q", other.url, "s")
    repository.commit()
    with serve(repository.path.parent) as server, pytest.raises(SourceError, match="names a file"):
        await desk.git(server.url(repository), submodules=True)


async def test_more_submodules_than_are_checked_out(desk: Desk, repository: Repository) -> None:
    """They are counted before any is fetched."""
    (repository.path / ".gitmodules").write_text('[submodule "a"]\n\tpath = a\n\turl = ../x\n')
    head = repository.head()
    for number in range(201):
        entry = f"160000,{head},s{number}"
        repository.git("update-index", "--add", "--cacheinfo", entry)
    repository.git("add", ".gitmodules")
    repository.git("commit", "-q", "-m", "m")
    with pytest.raises(SourceError, match="more than 200 submodules"):
        await desk.git(repository.url, submodules=True)
