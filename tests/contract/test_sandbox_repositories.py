"""Repositories that are not plainly in ``.git``, and what leads git elsewhere: protected, or told with the result."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from sandbox.filesystem.checkouts import find_checkouts, planted
from tests.contract.deviations import BWRAP
from tests.contract.sandbox_backends import Place, open_place

SUBMODULE = (
    "git init -q s; git -C s commit -q --allow-empty -m s;"
    " git -C r -c protocol.file.allow=always submodule add -q ../s sub"
)
HUSKY = "git -C r config core.hooksPath .husky; mkdir r/.husky; echo orig >r/.husky/pre-commit"
INCLUDED = "git -C r config include.path ../.gitconfig; echo '# orig' >r/.gitconfig"
WORKTREE = "git -C r commit -q --allow-empty -m x; git -C r worktree add -q ../w"
PROTECTED = (
    "git config -f .git/modules/sub/config core.fsmonitor evil",
    "echo evil >.git/modules/sub/hooks/pre-commit",
    "mv -T .git/modules .git/m2",
    "mv -T .git/modules/sub .git/modules/s2",
    "echo 'gitdir: ../evil' >sub/.git",
    "rm -f sub/.git",
    "mv -T sub sub2",
    "echo 'gitdir: ../evil' >../w/.git",
    "echo /tmp/evil >.git/worktrees/w/commondir",
    "mv -T .git/worktrees/w .git/worktrees/v",
    "echo evil >.husky/pre-commit",
    "echo evil >.husky/post-checkout",
    "mv -T .husky h2",
    "echo '[core] fsmonitor = evil' >>.gitconfig",
    "rm -f .gitconfig",
    "echo evil >>ci/own/.git/config",
    "ln .git/config alias",
)
TOLD = {
    "mkdir evil; echo ../evil >.git/commondir": "src/r/.git/commondir",
    "echo ../x >.git/modules/sub/commondir": "src/r/.git/modules/sub/commondir",
    "mkdir .githooks; echo evil >.githooks/pre-commit": "src/r/.githooks",
    "rm .git/modules/sub/HEAD": "src/r/.git/modules/sub",
    "echo none >.git/HEAD": "src/r/.git",
}


@pytest.fixture(params=[BWRAP])
async def mounting(request, reachable_dir):
    """The backend that can mount."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture
def sources(tmp_path) -> Path:
    """A folder with a repository ``r`` in it, that has all that a repository may have elsewhere."""
    folder = tmp_path / "sources"
    folder.mkdir()
    on_host(folder, f"git init -q -b main r; {SUBMODULE}; {WORKTREE}; {HUSKY}; {INCLUDED}")
    on_host(folder, "git init -q r/ci/own; git -C r config --add core.hooksPath .githooks")
    return folder


async def test_what_git_runs_is_read_only(mounting: Place, sources):
    """Wherever it is."""
    await mounting.sandbox.upload(sources, "src")
    before = find_checkouts(mounting.workspace / "job")
    script = "\n".join(
        f"({attack}) && echo 'MADE: {number}'" for number, attack in enumerate(PROTECTED)
    )
    output, result = await mounting.run(script, cwd="/job/src/r")
    assert b"MADE" not in output, output
    assert output.count(b"\n") >= len(PROTECTED)
    assert find_checkouts(mounting.workspace / "job").marks == before.marks
    assert result.planted == ()


async def test_what_leads_git_elsewhere_is_told(mounting: Place, sources):
    """What does not exist cannot be mounted, and all of ``.git`` has to be written."""
    await mounting.sandbox.upload(sources, "src")
    output, result = await mounting.run("set -e\n" + "\n".join(TOLD), cwd="/job/src/r")
    assert result.exit_code == 0, output
    assert set(TOLD.values()) <= set(result.planted)


async def test_repositories_in_others_stay_of_use(mounting: Place, sources):
    """Everything else can be changed, by git as well."""
    await mounting.sandbox.upload(sources, "src")
    script = (
        "set -e; git checkout -q -b other; cd sub; echo y >file; git add file; git -c user.name=a"
        " -c user.email=a@b commit -q --no-verify -m x; cd ..; git add sub; git status -s; git gc -q"
    )
    output, result = await mounting.run(script, cwd="/job/src/r")
    assert (result.exit_code, result.planted) == (0, ()), output


def test_what_a_repository_names_outside_is_not_the_jobs(tmp_path):
    """Nor all of a checkout, nor a folder where a file is meant."""
    on_host(tmp_path, "git init -q r; mkdir r/d")
    values = ("/etc", "~/x", "..", ".", "../../../..", "/job", "/job/r", "d/..")
    lines = "".join(f"[core]\nhooksPath = {v}\n[include]\npath = {v}/x\n" for v in values)
    with (tmp_path / "r/.git/config").open("a") as config:
        config.write(f"{lines}[include]\npath = ../d\n")
    found = find_checkouts(tmp_path)
    assert set(found.read_only()) == {"r/.git/config", "r/.git/hooks"}


def test_a_job_keeps_nobody_looking(tmp_path):
    """Configurations that name each other, and more than anybody has; it is no work for long."""
    on_host(tmp_path, "git init -q r")
    names = "".join(f"path = f{number}\n" for number in range(10_000))
    (tmp_path / "r/.git/config").write_text(f"[include]\npath = config\n{names}")
    (tmp_path / "r/.git/f0").write_text(f"[include]\n{names}")
    began = time.process_time()
    found = find_checkouts(tmp_path)
    assert planted(tmp_path, found) == ()
    assert time.process_time() - began < 2
    assert len(found.watched) < 2000


def on_host(folder: Path, script: str) -> None:
    """Run a script as a developer does."""
    who = {f"GIT_{kind}_{what}": "a@b" for kind in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), **who}
    subprocess.run(["/bin/sh", "-ec", script], cwd=folder, env=env, check=True, capture_output=True)
