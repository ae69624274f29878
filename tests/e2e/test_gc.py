"""``runner gc`` removes what the dead have left, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent_runner.workspace_claim import read_claim
from tests.e2e.instance import Instance
from tests.waiting import wait_until

pytestmark = pytest.mark.alone


def gc(instance: Instance, *args: str, code: int = 0) -> list[dict[str, Any]]:
    done = instance.run("gc", "--json", *args)
    assert done.returncode == code, done.stderr.decode()
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return [one for one in found if str(instance.root) in str(one["state_dir"])]


def actions(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((one["kind"], one["action"]) for one in found)


@pytest.fixture
def killed(started: Instance) -> tuple[Instance, str]:
    """An installation that was killed while a job ran and printed."""
    job_id = started.submit("echo kept; sleep 1000")
    started.wait_log(job_id, b"kept")
    started.kill_all()
    return started, job_id


def test_nothing_is_left_by_an_installation_that_runs_or_was_stopped(started: Instance) -> None:
    """What is in use is not even shown."""
    job_id = started.submit("sleep 1000")
    started.wait_running(job_id)
    assert gc(started) == []
    assert started.job(job_id)["state"] == "RUNNING"
    started.stop()
    assert gc(started) == []


def test_a_killed_installation_is_shown_and_removed(killed: tuple[Instance, str]) -> None:
    """A dry run names the job and attempt of each thing; the real one leaves what is not delivered."""
    instance, job_id = killed
    found = gc(instance, "--dry-run")
    kinds = {(one["kind"], one["action"]) for one in found}
    assert {("workspace", "would remove"), ("folder", "would remove"), ("spool", "keep")} <= kinds
    for one in found:
        assert one["age_seconds"] < 600
        if one["kind"] in ("workspace", "spool", "process"):
            assert (one["job_id"], one["attempt"]) == (job_id, 1)
    assert instance.workspaces()
    removed = gc(instance)
    assert {one["action"] for one in removed if one["kind"] != "spool"} == {"removed"}
    assert instance.workspaces() == []
    assert len(instance.spooled()) == 1
    assert instance.processes_of_state() == []
    text = instance.ok("gc", "--dry-run")
    assert "a log and result not delivered yet" in text
    # What was kept is delivered: the job runs again, and the log of its first attempt is whole.
    instance.start()
    instance.wait_running(job_id)
    assert instance.log(job_id, "--attempt", "1") == b"kept\n"
    instance.ok("jobs", "cancel", job_id)
    instance.wait(job_id)


def test_force_drops_what_was_not_delivered(killed: tuple[Instance, str]) -> None:
    """Only by the word of a person."""
    instance, _ = killed
    assert ("spool", "removed") in actions(gc(instance, "--force"))
    assert instance.spooled() == []
    assert gc(instance, "--force") == []


def test_a_dead_run_local_goes_and_a_living_one_stays(started: Instance) -> None:
    """Which process made a folder is in its name; beside an installation that runs, too."""
    path = started.job_file("job_command: 'echo up; sleep 1000'\n")
    runs = [
        started.popen(
            "run-local", "--file", path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    try:
        for run in runs:
            assert run.stdout is not None
            assert run.stdout.readline() == b"up\n"
        runs[0].kill()
        runs[0].wait()
        found = gc(started, "--dry-run")
        assert found, "the dead one was not found"
        assert all(f"run-local-{runs[0].pid}-" in one["path"] for one in found if one["path"])
        assert {one["action"] for one in gc(started)} == {"removed"}
        assert runs[1].poll() is None
        assert any(f"run-local-{runs[1].pid}-" in path for path in started.workspaces())
    finally:
        for run in runs:
            run.terminate()
            run.communicate(timeout=30)
    assert gc(started) == []


def test_a_claim_lives_as_long_as_its_process(started: Instance) -> None:
    """The lock goes with the agent-runner, whatever ended it."""
    root = f"/proc/{started.pid('agent-runner')}/fd"
    names = [os.readlink(f"{root}/{name}") for name in os.listdir(root)]
    (path,) = [Path(name) for name in names if name.endswith("/.shared/claim")]
    folder = path.parent.parent
    found = read_claim(folder)
    assert found is not None
    assert (found.state_dir, found.held) == (started.state, True)
    started.kill_all()
    # A zombie's threads may still hold its files.
    wait_until(lambda: (found := read_claim(folder)) is not None and not found.held, 30)
    gc(started)
    assert read_claim(folder) is None


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root's workspaces lie outside the state directory"
)
def test_root_finds_other_installations_by_their_claims(
    killed: tuple[Instance, str],
) -> None:
    """Also one whose state directory is gone; and never one that runs."""
    instance, job_id = killed
    elsewhere = Instance(Path(f"{instance.root}-other"))
    try:
        elsewhere.start()
        held = elsewhere.submit("sleep 1000")
        elsewhere.wait_running(held)
        found = json.loads(elsewhere.ok("gc", "--dry-run", "--json"))
        assert any(one["job_id"] == job_id for one in found)
        assert not any(one["state_dir"] == str(elsewhere.state) for one in found)
        removed = json.loads(elsewhere.ok("gc", "--json"))
        assert {one["action"] for one in removed if one["job_id"] == job_id} == {"removed"}
        assert instance.workspaces() == []
        assert elsewhere.job(held)["state"] == "RUNNING"
    finally:
        elsewhere.stop()
        subprocess.run(["rm", "-rf", str(elsewhere.root)], check=True)
    gc(instance, "--force")
