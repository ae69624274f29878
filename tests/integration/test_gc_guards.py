"""What ``runner gc`` leaves alone although it has found it: somebody may start between its look and its removal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_runner.workspace_claim import FILE, FOLDER
from daemon.cli.gc import remove_leftovers
from daemon.cli.leftovers import Leftover, find_leftovers
from daemon.local.lock import take_lock
from daemon.paths import StateDir
from sandbox.env import OWNER_MARKER, SANDBOX_MARKER

pytestmark = pytest.mark.alone

Job = Callable[[str, str], "subprocess.Popen[bytes]"]


@pytest.fixture
def job() -> Iterator[Job]:
    """Start a process with the marks of an owner and a sandbox."""
    started: list[subprocess.Popen[bytes]] = []

    def start(owner: str, sandbox: str) -> subprocess.Popen[bytes]:
        env = {OWNER_MARKER: owner, SANDBOX_MARKER: sandbox}
        started.append(subprocess.Popen(["/bin/sleep", "1000"], env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    made = StateDir(tmp_path / "state", tmp_path / "run")
    made.prepare()
    yield made
    if os.geteuid() == 0:
        shutil.rmtree(made.workspaces, ignore_errors=True)


def found_by(state: StateDir) -> list[Leftover]:
    """Return what is found; of the folders only those of this test."""
    everything = list(find_leftovers(state, {}, 0.0))
    return [one for one in everything if one.kind == "process" or str(state.workspaces) in one.path]


def of_kind(found: list[Leftover], kind: str) -> list[str]:
    return [one.path for one in found if one.kind == kind]


def claimed(state: StateDir, name: str) -> Path:
    """Make a folder of workspaces as a killed agent-runner leaves it."""
    folder = state.workspaces / name
    (folder / FOLDER).mkdir(parents=True)
    (folder / FOLDER / FILE).write_text(json.dumps({"state_dir": str(state.root)}))
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks at other installations")
def test_jobs_of_another_installation_that_has_just_started_live(
    state: StateDir, tmp_path: Path, job: Job
) -> None:
    """Its mark was a dead one's when it was read; the lock that it takes at its start tells otherwise."""
    claimed(state, "agent-runner")
    process = job(state.id, "aaaaaaaaaa-1")
    found = found_by(StateDir(tmp_path / "mine", tmp_path / "run-mine"))
    assert str(process.pid) in of_kind(found, "process")
    lock_fd = take_lock(state)
    assert lock_fd is not None
    try:
        actions = remove_leftovers(found, force=False)
    finally:
        os.close(lock_fd)
    assert set(actions) == {"keep: its installation has just started"}
    assert process.poll() is None


def test_only_sandboxes_that_were_found_are_killed(state: StateDir, job: Job) -> None:
    """What came later under the same mark is not shown, so it is not killed; what a found one started since is."""
    old = job(state.id, "aaaaaaaaaa-1")
    found = found_by(state)
    assert of_kind(found, "process") == [str(old.pid)]
    child, new = job(state.id, "aaaaaaaaaa-1"), job(state.id, "aaaaaaaaaa-2")
    remove_leftovers(found, force=False)
    assert (old.wait(30), child.wait(30)) == (-9, -9)
    assert new.poll() is None


def test_an_agent_runner_without_a_spool_is_found_by_its_folder(state: StateDir, job: Job) -> None:
    """Its spool went to the first one; its workspaces tell that there was one, and what mark its jobs have."""
    state.root.joinpath("lock").touch()
    folder = claimed(state, "agent-runner-2")
    process = job(f"{state.id}-2", "aaaaaaaaaa-1")
    assert of_kind(found_by(state), "process") == [str(process.pid)]
    lock_fd = take_lock(state)
    assert lock_fd is not None
    try:
        (shown,) = [one for one in found_by(state) if one.path == str(folder)]
        assert shown.keep == "its installation runs: the next start removes it"
        state.spool_of(2).mkdir()
        assert str(folder) not in of_kind(found_by(state), "folder")
        state.spool_of(2).rmdir()
    finally:
        os.close(lock_fd)
    remove_leftovers(found_by(state), force=False)
    assert process.wait(30) == -9
    assert not folder.exists()


def test_ends_that_may_not_be_delivered_are_kept(state: StateDir) -> None:
    """Those of attempts that printed nothing, too; only the word of a person drops them."""
    state.root.joinpath("lock").touch()
    ends = state.spool / "0123456789abcdef.ends"
    ends.write_bytes(b"x")
    found = [one for one in find_leftovers(state, {}, 0.0) if one.path == str(ends)]
    assert [(one.kind, one.undelivered) for one in found] == [("spool", True)]
    remove_leftovers(found, force=False)
    assert ends.exists()
    remove_leftovers(found, force=True)
    assert not ends.exists()
