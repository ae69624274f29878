"""Existing checkouts: what git, an editor or an agent would run cannot be changed, and what is new is told."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from sandbox.filesystem.checkouts import TOLD, find_checkouts, planted
from tests.contract.deviations import BWRAP
from tests.contract.sandbox_backends import FILESYSTEM_BACKENDS, Place, open_place

ATTACKS = (
    "echo evil >.git/hooks/pre-commit",
    "echo evil >.git/hooks/post-checkout",
    "mv .git/hooks .git/h2 && mkdir .git/hooks",
    "mv .git .git2 && cp -r .git2 .git && echo evil >.git/hooks/pre-commit",
    "cd .. && mv r r2 && cp -r r2 r && echo evil >r/.git/hooks/pre-commit",
    "cd ../.. && mv src src2 && mkdir src",
    "git config core.fsmonitor evil",
    "echo evil >>.git/config",
    "rm -f .git/config; ln -s /tmp/evil .git/config",
    "echo evil >.vscode/tasks.json",
    "rm -rf .vscode && mkdir .vscode",
    "echo evil >.envrc",
    "chmod 777 .git/hooks",
)


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with a repository in it, as a developer has it."""
    folder = tmp_path / "source" / "r"
    folder.mkdir(parents=True)
    subprocess.run(["/usr/bin/git", "init", "-q", folder], check=True)
    (folder / ".git/hooks/pre-commit").write_text("orig")
    (folder / ".vscode").mkdir()
    (folder / ".vscode/tasks.json").write_text("orig")
    (folder / ".envrc").write_text("orig")
    (folder / "file").write_text("content")
    return tmp_path / "source"


@pytest.fixture(params=FILESYSTEM_BACKENDS)
async def real(request, reachable_dir):
    """Every backend that runs processes."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.fixture(params=[BWRAP])
async def mounting(request, reachable_dir):
    """The backend that can mount."""
    async for each in open_place(request, reachable_dir):
        yield each


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_others_run_is_read_only(mounting: Place, checkout, attack):
    """Neither by writing, nor by putting another folder in the place of one above it."""
    await mounting.sandbox.upload(checkout, "src")
    before = listing(mounting.workspace / "job/src/r")
    output, result = await mounting.run(attack, cwd="/job/src/r")
    assert result.exit_code != 0, output
    assert listing(mounting.workspace / "job/src/r") == before
    assert result.planted == ()


async def test_a_checkout_stays_of_use(mounting: Place, checkout):
    """Everything else can be changed, by git as well."""
    await mounting.sandbox.upload(checkout, "src")
    script = (
        "set -e; git add -A; git -c user.name=a -c user.email=a@b commit -q --no-verify -m x;"
        " git checkout -q -b other; echo y >file; git stash -q; mkdir d; mv file d/; git status -s"
    )
    output, result = await mounting.run(script, cwd="/job/src/r")
    assert result.exit_code == 0, output
    assert result.planted == ()


async def test_a_job_that_says_so_may_write_all(mounting: Place, checkout):
    """For jobs whose very work is the configuration."""
    sandbox = await mounting.another(protect=False)
    await sandbox.upload(checkout, "src")
    script = "git config a.b c && echo x >.git/hooks/new && mv .vscode v2"
    output, result = await mounting.run(script, cwd="/job/src/r", sandbox=sandbox)
    assert (result.exit_code, result.planted) == (0, ()), output


async def test_what_is_new_is_told(real: Place, checkout):
    """Where nothing can be mounted also what was changed; never what a job makes in a checkout of its own."""
    await real.sandbox.upload(checkout, "src")
    script = (
        "mkdir .claude; echo x >.claude/settings.json; echo x >.mcp.json; git init -q own;"
        " echo x >own/.git/hooks/pre-commit; echo x >.git/config.worktree; echo x >other"
    )
    _, result = await real.run(script, cwd="/job/src/r")
    assert result.planted == (
        "src/r/.claude",
        "src/r/.claude/settings.json",
        "src/r/.git/config.worktree",
        "src/r/.mcp.json",
    )


async def test_what_was_changed_is_told_where_it_can_be(real: Place, checkout):
    """A result that says nothing would be taken for a checkout that is as it was."""
    await real.sandbox.upload(checkout, "src")
    _, result = await real.run("echo evil >>.git/config", cwd="/job/src/r")
    assert result.planted == (() if real.backend == BWRAP else ("src/r/.git/config",))


async def test_privileged_bits_are_gone_after_a_command(real: Place):
    """Whatever the depth, and whoever set them how."""
    script = (
        "umask 0; cp /usr/bin/id a && chmod 6755 a; mkdir -p d/e/f; cp a d/e/f/b; chmod u+s d/e/f/b;"
        " chmod g+s d; ln -s /usr/bin/passwd l; cp a $HOME/c; chmod u+s $HOME/c;"
        " i=0; while [ $i -lt 300 ]; do mkdir x && cd x; i=$((i+1)); done; cp /bin/true t; chmod 4711 t"
    )
    await real.run(script)
    for top in ("job", "home", "tmp"):
        for folder, folders, files in os.walk(real.workspace / top):
            for name in (*folders, *files):
                mode = os.lstat(f"{folder}/{name}").st_mode
                assert stat.S_ISLNK(mode) or not mode & (stat.S_ISUID | stat.S_ISGID), name
    assert stat.S_IMODE((real.workspace / "job/src/a").stat().st_mode) == 0o755


def test_links_lead_to_no_checkout(tmp_path):
    """A job that names a link like a checkout, or puts one in its way, makes nothing of the host protected or told."""
    job = tmp_path / "job"
    (job / "src" / "r" / ".git").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / ".git" / "hooks").mkdir(parents=True)
    (job / "src" / "l").symlink_to(outside)
    (job / "src" / "r" / ".git" / "hooks").symlink_to(outside)
    (job / "src" / "r" / ".claude").symlink_to("/etc")
    found = find_checkouts(job)
    assert found.folders == ("src/r",)
    assert not any("outside" in path or path.startswith("src/l") for path in found.marks)
    assert set(found.marks) <= {"src/r/.git/hooks", "src/r/.claude"}
    assert found.read_only() == []


def test_more_than_a_message_holds_is_cut(tmp_path):
    """A job may make thousands."""
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    found = find_checkouts(tmp_path)
    for number in range(100):
        (tmp_path / ".git" / "hooks" / f"h{number:03}").write_text("")
    assert len(planted(tmp_path, found)) == TOLD


def test_a_flood_hides_nothing(tmp_path):
    """What is new beside a folder with more in it than is looked at, and told, is told too."""
    (tmp_path / ".git" / "hooks").mkdir(parents=True)
    found = find_checkouts(tmp_path)
    for name in (".claude", ".zed"):
        (tmp_path / name).mkdir()
        for number in range(6000):
            (tmp_path / name / f"a{number}").touch()
    (tmp_path / ".git" / "commondir").write_text("../evil")
    told = planted(tmp_path, found)
    assert {".claude", ".git/commondir", ".zed"} < set(told)
    assert len(told) == TOLD


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modes and contents below what is protected."""
    found = {}
    for name in (".git/config", ".git/hooks", ".vscode", ".envrc"):
        for path in (folder / name, *(folder / name).rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (path.lstat().st_mode, content)
    return found
