"""Sources from git: real repositories, over files and over HTTP, with and without a password."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import psutil
import pytest

from agent_runner.errors import SourceError
from agent_runner.job_spec import SourceSpec
from tests.integration.git_servers import Repository, git, serve
from tests.integration.sources import Desk

PASSWORD = "pw-" + "x7" * 10


async def test_the_default_branch(desk: Desk, repository: Repository) -> None:
    """Without a ref it is the branch that the server's HEAD names, and the copy knows where it is from."""
    repository.git("checkout", "-q", "-b", "trunk")
    commit = repository.commit(a="trunk")

    record = await desk.git(repository.url)

    assert record.commit == commit
    assert desk.text("a") == "trunk"
    assert git(desk.tree, "symbolic-ref", "HEAD") == "refs/heads/trunk"
    assert git(desk.tree, "config", "remote.origin.url") == repository.url
    assert git(desk.tree, "status", "--porcelain") == ""
    assert desk.left() == []


async def test_modes_do_not_depend_on_the_umask(desk: Desk, repository: Repository) -> None:
    """A job of somebody with a private umask gets the files as everybody else's does."""
    before = os.umask(0o077)
    try:
        await desk.git(repository.url)
    finally:
        os.umask(before)
    assert (desk.tree / "a").stat().st_mode & 0o777 == 0o644


async def test_every_kind_of_ref(desk: Desk, repository: Repository) -> None:
    """A branch, a tag, a commit, its beginning, and a ref that no clone would fetch."""
    first = repository.head()
    repository.git("tag", "-a", "-m", "t", "v1")
    repository.git("checkout", "-q", "-b", "feature/x")
    feature = repository.commit(a="feature")
    repository.git("checkout", "-q", "--detach")
    hidden = repository.commit(a="hidden")
    repository.git("update-ref", "refs/pull/7/head", hidden)
    repository.git("checkout", "-q", "main")

    for ref, commit in (
        ("feature/x", feature),
        ("refs/heads/feature/x", feature),
        ("v1", first),
        ("refs/tags/v1", first),
        (first, first),
        (first[:9], first),
        ("refs/pull/7/head", hidden),
        (hidden, hidden),
    ):
        assert (await desk.git(repository.url, ref)).commit == commit, ref
        assert git(desk.tree, "rev-parse", "HEAD") == commit


async def test_a_commit_that_no_ref_names(desk: Desk, repository: Repository) -> None:
    """The server is asked for it by its id."""
    repository.git("checkout", "-q", "--detach")
    hidden = repository.commit(a="hidden")
    repository.git("update-ref", "refs/pull/7/head", hidden)
    repository.git("checkout", "-q", "main")

    assert (await desk.git(repository.url, hidden)).commit == hidden


@pytest.mark.parametrize("ref", ["nope", "0" * 40, "refs/pull/9/head", "refs/heads/nope"])
async def test_a_ref_that_is_not_there(desk: Desk, repository: Repository, ref: str) -> None:
    """It is named, and the mirror is none the worse."""
    with pytest.raises(SourceError, match=ref):
        await desk.git(repository.url, ref)
    assert (await desk.git(repository.url)).commit == repository.head()


async def test_depth(desk: Desk, repository: Repository) -> None:
    """As many commits as were asked for, of branches, tags and commits."""
    repository.commit(a="2")
    repository.git("tag", "v2")
    repository.commit(a="3")
    for ref, depth in (("main", 1), ("v2", 1), ("main", 2), (repository.head(), 1)):
        await desk.git(repository.url, ref, depth=depth)
        assert git(desk.tree, "rev-list", "--count", "HEAD") == str(depth)
    assert git(desk.tree, "config", "remote.origin.url") == repository.url


async def test_http(desk: Desk, repository: Repository) -> None:
    """A server without a password."""
    with serve(repository.path.parent) as server:
        assert (await desk.git(server.url(repository))).commit == repository.head()


async def test_a_second_job_fetches_only_what_changed(desk: Desk, repository: Repository) -> None:
    """A mebibyte goes over the wire once, and what is new after it."""
    repository.commit(big=os.urandom(1 << 20).hex())
    with serve(repository.path.parent) as server:
        await desk.git(server.url(repository))
        assert server.sent_bytes > 1 << 20
        server.sent_bytes = 0
        await desk.git(server.url(repository))
        assert server.sent_bytes < 4096
        commit = repository.commit(a="new")
        record = await desk.git(server.url(repository))
        assert server.sent_bytes < 16384
    assert (record.commit, desk.text("a")) == (commit, "new")


async def test_a_branch_that_was_rewritten_or_removed(desk: Desk, repository: Repository) -> None:
    """The mirror follows, also where a branch becomes a folder of branches."""
    repository.git("branch", "x")
    await desk.git(repository.url, "x")
    repository.git("branch", "-D", "x")
    repository.git("branch", "x/y")
    repository.git("commit", "--amend", "--allow-empty", "-q", "-m", "rewritten")

    assert (await desk.git(repository.url, "x/y")).commit
    assert (await desk.git(repository.url, "main")).commit == repository.head()
    with pytest.raises(SourceError, match="no branch, tag or commit x"):
        await desk.git(repository.url, "x")


@pytest.mark.parametrize(
    ("credentials", "user", "in_url"),
    [
        (f"me:{PASSWORD}", "me", ""),
        (PASSWORD, "x-access-token", ""),
        (f"{PASSWORD}:{PASSWORD}", "we", "we"),
    ],
)
async def test_a_password(
    desk: Desk, repository: Repository, credentials: str, user: str, in_url: str
) -> None:
    """It reaches the server, in each of its forms, and nothing that is left."""
    password = credentials if in_url else PASSWORD
    with serve(repository.path.parent, user, password) as server:
        source = SourceSpec(kind="git", url=server.url(repository, in_url), credentials="x")
        record = await desk.prepare(source, source_credentials=credentials)

    assert record.commit == repository.head()
    for path in desk.root.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("credentials", ["", "me:wrong"])
async def test_a_wrong_password(desk: Desk, repository: Repository, credentials: str) -> None:
    """git's own words, no question, and the mirror of somebody who had it is not given out."""
    with serve(repository.path.parent, "me", PASSWORD) as server:
        source = SourceSpec(kind="git", url=server.url(repository))
        await desk.prepare(source, source_credentials=f"me:{PASSWORD}")
        commit = repository.head()
        for ref in ("", "main", commit):
            with pytest.raises(
                SourceError, match=r"source: git (fetch|ls-remote) failed: .*fatal: "
            ):
                await desk.prepare(
                    SourceSpec(kind="git", url=source.url, ref=ref), source_credentials=credentials
                )
            assert not desk.files


async def test_a_password_goes_to_its_own_server_only(
    desk: Desk, repository: Repository, tmp_path: Path
) -> None:
    """A submodule on another server, which asks for a password, does not get it."""
    other = Repository(tmp_path / "other" / "sub")
    other.commit(x="y")
    with (
        serve(repository.path.parent, "me", PASSWORD) as server,
        serve(other.path.parent, "me", PASSWORD) as foreign,
    ):
        repository.git("submodule", "add", "-q", other.url, "s")
        repository.git("config", "-f", ".gitmodules", "submodule.s.url", foreign.url(other))
        repository.commit()
        source = SourceSpec(kind="git", url=server.url(repository), submodules=True)
        with pytest.raises(SourceError, match="could not read Username"):
            await desk.prepare(source, source_credentials=f"me:{PASSWORD}")


async def test_no_server(desk: Desk) -> None:
    """What git says is the message."""
    with pytest.raises(SourceError, match="Failed to connect"):
        await desk.git("http://127.0.0.1:9/x")
    with pytest.raises(SourceError, match=r"does not (appear to be a git repository|exist)"):
        await desk.git("file:///nonexistent/x")
    assert list(desk.root.glob("mirrors/*.git")) == []


async def test_an_empty_repository(desk: Desk, tmp_path: Path) -> None:
    """It is said so."""
    with pytest.raises(SourceError, match="no commit yet"):
        await desk.git(Repository(tmp_path / "empty").url)


async def test_nothing_of_a_repository_is_run(
    desk: Desk, repository: Repository, tmp_path: Path
) -> None:
    """Hooks, filters, an fsmonitor and an upload hook of a repository on this host are only files."""
    mark = tmp_path / "PWNED"
    script = repository.path / "run.sh"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    repository.commit(**{".gitattributes": "* filter=evil diff=evil merge=evil\n"})
    for hook in ("post-checkout", "pre-commit", "post-merge", "reference-transaction", "update"):
        (repository.path / ".git" / "hooks").mkdir(exist_ok=True)
        (repository.path / ".git" / "hooks" / hook).symlink_to(script)
    for key in (
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "filter.evil.smudge",
        "filter.evil.clean",
        "filter.evil.process",
        "uploadpack.packObjectsHook",
        "credential.helper",
        "core.gitProxy",
        "core.alternateRefsCommand",
    ):
        repository.git("config", key, str(script))

    await desk.git(repository.url)
    await desk.git(repository.url, depth=1)
    await desk.prepare(SourceSpec(kind="copy", path=str(repository.path)))

    assert not mark.exists()


@pytest.mark.parametrize("damage", ["objects", "HEAD", "pack", "refs", "lock", "file"])
async def test_a_damaged_mirror_heals(desk: Desk, repository: Repository, damage: str) -> None:
    """Whatever a crash or a disk did to it, the next job gets its source."""
    await desk.git(repository.url)
    (mirror,) = (desk.root / "mirrors").glob("*.git")
    objects = [path for path in (mirror / "objects").rglob("*") if path.is_file()]
    if damage == "objects":
        for path in objects:
            path.unlink()
    elif damage == "HEAD":
        (mirror / "HEAD").write_text("")
    elif damage == "pack":
        for path in objects:
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[:-30])
    elif damage == "refs":
        for path in (mirror / "refs").rglob("main"):
            path.write_text("garbage")
        (mirror / "packed-refs").write_text("garbage")
    elif damage == "lock":
        for name in ("packed-refs.lock", "config.lock", "HEAD.lock", "refs/heads/main.lock"):
            (mirror / name).touch()
    else:
        shutil.rmtree(mirror)
        mirror.write_text("")
    commit = repository.commit(a="after")

    assert (await desk.git(repository.url)).commit == commit
    assert desk.text("a") == "after"


async def test_many_jobs_at_once(tmp_path: Path, repository: Repository) -> None:
    """They share a mirror that does not exist yet, and each has its own commit."""
    commits = [repository.commit(a=str(number)) for number in range(8)]

    desk = Desk(tmp_path / "all")
    records = await asyncio.gather(*(desk.git(repository.url, commit) for commit in commits))
    assert [record.commit for record in records] == commits
    assert len(list((desk.root / "mirrors").glob("*.git"))) == 1
    assert desk.left() == []


def _git_processes() -> dict[int, str]:
    """What git runs for us, and what other tests of this process have left; the server's are no sessions of their own."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(child.pid) != os.getsid(0):
                found[child.pid] = f"{child.name()} {child.status()}"
    return found


async def test_a_cancel_ends_every_process(desk: Desk, repository: Repository) -> None:
    """git and what it started are gone when the cancellation is through, and nothing of them is left."""
    others = _git_processes().keys()
    with serve(repository.path.parent) as server:
        server.hold.clear()
        running = asyncio.create_task(desk.git(server.url(repository)))
        while not any("git-upload-pack" in request for request in server.requests):
            await asyncio.sleep(0.01)
        assert _git_processes().keys() - others
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert _git_processes().keys() <= others
        assert desk.left() == []
        server.hold.set()
        assert (await desk.git(server.url(repository))).commit == repository.head()


async def test_what_a_killed_process_left_is_removed(desk: Desk, repository: Repository) -> None:
    """The next preparation removes it, and leaves alone what is in use."""
    left = desk.root / "work" / "job-9"
    (left / "tree").mkdir(parents=True)
    (desk.root / "work" / "job-9.lock").touch()

    await desk.git(repository.url)

    assert desk.left() == []


async def test_folders_are_private(desk: Desk, repository: Repository) -> None:
    """Whoever else is on the host sees nothing of what jobs work on."""
    await desk.git(repository.url)
    for folder in (desk.root, desk.root / "mirrors", desk.root / "work"):
        assert folder.stat().st_mode & 0o077 == 0


async def test_both_sources(desk: Desk, repository: Repository, tmp_path: Path) -> None:
    """The trusted one goes to its own place, and both commits are recorded."""
    scripts = Repository(tmp_path / "scripts")
    scripts.commit(**{"deploy.sh": "d"})
    record = await desk.prepare(
        SourceSpec(kind="git", url=repository.url), SourceSpec(kind="git", url=scripts.url)
    )
    assert (record.commit, record.ci_commit) == (repository.head(), scripts.head())
    assert (desk.files["src/a"], desk.files["ci/deploy.sh"]) == (b"one", b"d")
