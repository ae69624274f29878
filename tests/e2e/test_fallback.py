"""The filesystem sandbox in the place of a container: only before the command, only if the job says so, and never in silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import engine_keeper
from tests.contract.container_engine import EMPTY_IMAGE, IMAGE, running_engine
from tests.contract.engine_kinds import missing_part
from tests.e2e.instance import Instance
from tests.e2e.terminal import Terminal
from tests.e2e.test_cloud_mode import containers
from tests.waiting import wait_until

SECRET = "canary-0f4b8d1e7a"
TELLS = "echo why=$RUNNER_CONTAINER_ERROR without=$RUNNER_WITHHELD; env | grep -c ^DEPLOY_KEY="
JOB = f"""
job_command: "{TELLS}; echo $PLAIN; pwd"
env: {{PLAIN: plain, DEPLOY_KEY: "${{secret:local:DEPLOY_KEY}}"}}
sandbox: {{kind: container, container_only: [DEPLOY_KEY]}}
"""
ALLOWED = JOB.replace("container_only", "fallback: allow, container_only")


@pytest.fixture
def lone(instance: Instance) -> Instance:
    """Somebody without an engine."""
    instance.extra_env |= {
        "RUNNER_CONTAINER_ENGINE": f"unix://{instance.root}/none.sock",
        "RUNNER_CONTAINER_PULL": "never",
        "RUNNER_IMAGE": IMAGE,
        "DEPLOY_KEY": SECRET,
    }
    return instance


def run(here: Instance, *args: str) -> subprocess.CompletedProcess[bytes]:
    return here.run("run-local", "-f", str(here.root / "job.yaml"), *args)


def test_the_job_is_told_what_it_lacks(lone: Instance):
    """No engine: the command runs in the filesystem sandbox, knows why, and has no secret that is for containers only."""
    lone.job_file(ALLOWED)
    done = run(lone)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("runner: WARNING: NO CONTAINER: the container engine did not answer")
    assert lines[0].endswith("(bwrap); withheld, because they are for containers only: DEPLOY_KEY")
    assert lines[1].startswith("why=the container engine did not answer")
    assert lines[1].endswith("without=DEPLOY_KEY")
    assert lines[2:] == ["0", "plain", "/job/src"]
    del lone.extra_env["DEPLOY_KEY"]
    assert run(lone, "--sandbox", "filesystem").stdout.splitlines()[2:] == [
        b"0",
        b"plain",
        b"/job/src",
    ]
    assert run(lone).returncode == 8  # where there is to be a container, the secret is needed


@pytest.mark.parametrize(
    ("image", "pull"),
    [
        ("nobody/nothing:7", "never"),
        (EMPTY_IMAGE, "never"),
        ("127.0.0.1:1/nobody/tool:7", "missing"),
    ],
)
def test_an_image_that_cannot_run_it(lone: Instance, container_engine: Path, image: str, pull: str):
    """One that is not there, one in which nothing can be started, and one whose registry is away."""
    lone.extra_env["RUNNER_CONTAINER_PULL"] = pull
    lone.extra_env["RUNNER_CONTAINER_ENGINE"] = f"unix://{container_engine}/sock"
    lone.job_file(ALLOWED)
    done = run(lone, "--runner-image", image)
    assert done.stdout.splitlines()[-3:] == [b"0", b"plain", b"/job/src"], done.stderr
    assert b"NO CONTAINER" in done.stdout
    assert containers(container_engine) == []


def test_who_decides(lone: Instance):
    """Flag, file, environment; asking needs somebody; and never is the rule."""
    lone.job_file(JOB)
    assert run(lone).returncode == 125
    assert run(lone, "--fallback", "allow").returncode == 0
    assert run(lone, "--fallback", "ask").returncode == 125
    lone.extra_env["RUNNER_FALLBACK"] = "allow"
    assert run(lone).returncode == 0
    assert run(lone, "--fallback", "never").returncode == 125
    lone.job_file(JOB.replace("container_only", "fallback: never, container_only"))
    assert run(lone).returncode == 125


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 125), ("\x03", 130)])
def test_asking_a_person(lone: Instance, answer: str, code: int):
    """At a terminal the reason is shown and the answer counts; no answer is no, and Ctrl-C is a cancel."""
    lone.job_file(JOB)
    terminal = Terminal(
        lone, ["run-local", "-f", str(lone.root / "job.yaml"), "--fallback", "ask"], "xterm"
    )
    terminal.wait_for("filesystem sandbox of this machine instead? [y/N]")
    assert "no container: the container engine did not answer" in terminal.pump()
    terminal.child.send(answer if answer == "\x03" else f"{answer}\r")
    assert terminal.end() == code
    assert ("NO CONTAINER" in terminal.pump()) is (code == 0)


def test_walls_that_were_demanded_still_hold(lone: Instance):
    """The tier and what is required are demands on whatever runs the command; the reason names both failures."""
    lone.job_file(ALLOWED.replace("fallback", "min: bwrap, fallback"))
    lone.extra_env["RUNNER_SANDBOX_TIER"] = "landlock"
    done = run(lone)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"engine gone" in done.stderr
    assert b"no filesystem sandbox instead" in done.stderr


def test_through_the_daemon(lone: Instance, container_engine: Path):
    """The attempt says what it ran in and why; the same job without the policy fails with the reason; both kinds work in one mode."""
    lone.extra_env |= {
        "MODE": "cloud",
        "RUNNER_CONTAINER_ENGINE": f"unix://{container_engine}/sock",
    }
    lone.start("--secret", "DEPLOY_KEY")
    lone.job_file(ALLOWED.replace("sandbox:", "container_image: nobody/nothing:7\nsandbox:"))
    job_id = lone.ok("jobs", "submit", "-f", str(lone.root / "job.yaml")).strip()
    job = lone.wait(job_id)
    assert (job["state"], job["sandbox"]["kind"]) == ("SUCCEEDED", "filesystem")
    assert "there was no container: there is no image nobody/nothing:7" in job["message"]
    attempt = lone.job(job_id)["attempts"][0]
    assert "nobody/nothing:7" in attempt["message"]
    log = lone.log(job_id)
    assert log.startswith(b"runner: WARNING: NO CONTAINER: there is no image nobody/nothing:7")
    assert log.splitlines()[2:] == [b"0", b"plain", b"/job/src"]
    assert SECRET.encode() not in log
    lone.job_file(JOB.replace("sandbox:", "container_image: nobody/nothing:7\nsandbox:"))
    refused = lone.ok("jobs", "submit", "-f", str(lone.root / "job.yaml")).strip()
    assert lone.wait(refused)["end_reason"] == "IMAGE_MISSING"
    lone.job_file("job_command: echo $FROM_IMAGE.\nsandbox: {kind: filesystem}\n")
    walled = lone.ok("jobs", "submit", "-f", str(lone.root / "job.yaml")).strip()
    assert lone.wait(walled)["sandbox"]["kind"] == "filesystem"
    lone.stop()
    assert containers(container_engine) == []


def test_a_container_in_local_mode(lone: Instance, container_engine: Path):
    """A job may ask for one; what a killed agent-runner leaves of it is removed by the next start, and only engines that were used are asked."""
    lone.extra_env["RUNNER_CONTAINER_ENGINE"] = f"unix://{container_engine}/sock"
    lone.start()
    lone.job_file(
        "job_command: 'echo attempt $RUNNER_ATTEMPT $FROM_IMAGE; [ $RUNNER_ATTEMPT = 2 ] || sleep 1000'\n"
        "sandbox: {kind: container}\n"
    )
    job_id = lone.ok("jobs", "submit", "-f", str(lone.root / "job.yaml")).strip()
    lone.wait_log(job_id, b"attempt 1 yes")
    lone.kill("agent-runner")
    job = lone.wait(job_id)
    assert (job["state"], job["attempt"], job["sandbox"]["kind"]) == ("SUCCEEDED", 2, "container")
    wait_until(lambda: containers(container_engine) == [], 20)


@pytest.fixture(scope="module")
def mortal_engine() -> Iterator[Path]:
    """An engine that tests may kill."""
    if reason := missing_part():
        pytest.skip(reason)
    with running_engine() as root:
        yield root


def kill_engine(root: Path) -> None:
    """Kill an engine, and what runs in it."""
    os.kill(int((root / "pid").read_text()), signal.SIGKILL)
    engine_keeper.kill_what_runs_below(root)


def waits_for(here: Instance, job_id: str) -> list[str]:
    """Return what a job is said to wait for."""
    return [wait["kind"] for wait in json.loads(here.ok("jobs", "why", job_id, "--json"))["waits"]]


def test_an_engine_that_dies_beneath_a_command(lone: Instance, mortal_engine: Path):
    """Nothing runs a second time elsewhere: ENGINE_GONE, and in the queue the job is run again when the engine is back.

    Until then the agent-runner takes only what does without it, and says so.
    """
    lone.extra_env |= {
        "MODE": "cloud",
        "RUNNER_CONTAINER_ENGINE": f"unix://{mortal_engine}/sock",
    }
    lone.start()
    lone.job_file(
        "job_command: 'echo attempt $RUNNER_ATTEMPT $FROM_IMAGE; [ $RUNNER_ATTEMPT != 1 ] || sleep 1000'\n"
    )
    job_id = lone.ok("jobs", "submit", "-f", str(lone.root / "job.yaml")).strip()
    lone.wait_log(job_id, b"attempt 1 yes")
    lone.job_file("job_command: echo up; sleep 1000\nsandbox: {kind: container, fallback: allow}\n")
    with lone.popen(
        "run-local", "-q", "-f", str(lone.root / "job.yaml"), stdout=-1, stderr=-1
    ) as here:
        assert here.stdout is not None
        assert here.stdout.readline() == b"up\n"
        kill_engine(mortal_engine)
        out, error = here.communicate(timeout=60)
    assert (out, here.returncode) == (b"", 125), error
    assert b"engine gone" in error
    wait_until(lambda: lone.job(job_id)["attempts"][0]["end_reason"] == "ENGINE_GONE", 30)
    later = lone.submit("echo $FROM_IMAGE")
    wait_until(
        lambda: waits_for(lone, later) == ["engine"], 30, lambda: lone.ok("jobs", "why", later)
    )
    lone.job_file("job_command: 'true'\nsandbox: {fallback: allow}\n")
    outside = lone.ok("jobs", "submit", "-f", str(lone.root / "job.yaml")).strip()
    assert lone.wait(outside)["sandbox"]["kind"] == "filesystem"
    for name in ("pid", "exec/containerd/containerd.pid"):
        (mortal_engine / name).unlink(missing_ok=True)
    engine = engine_keeper.start(mortal_engine)
    try:
        job = lone.wait(job_id)
        assert (job["state"], job["sandbox"]["kind"]) == ("SUCCEEDED", "container"), json.dumps(job)
        assert (lone.wait(later)["state"], lone.job(later)["attempt"]) == ("SUCCEEDED", 1)
        log = lone.state.joinpath("logs", "agent-runner.log").read_text()
        assert (log.count('"engine_away"'), log.count('"engine_back"')) == (1, 1)
    finally:
        engine_keeper.stop(engine)
