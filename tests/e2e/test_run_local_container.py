"""``run-local`` in containers of a real engine: flags, images, what a dry run says, and what a kill leaves."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.container_engine import EMPTY_IMAGE, IMAGE
from tests.contract.engine_keeper import ask
from tests.e2e.instance import Instance
from tests.e2e.test_cloud_mode import containers
from tests.waiting import wait_until

JOB = 'job_command: "echo $FROM_IMAGE; pwd; id -u; exit 3"\n'
SECRET = "canary-7c2d9e10"


@pytest.fixture
def here(instance: Instance, container_engine: Path) -> Iterator[Instance]:
    """Somebody who has an engine, and no default image; the engine holds nothing of them afterwards."""
    instance.extra_env |= {
        "RUNNER_CONTAINER_ENGINE": f"unix://{container_engine}/sock",
        "RUNNER_CONTAINER_PULL": "never",
    }
    yield instance
    assert containers(container_engine) == []
    assert instance.workspaces() == []


def images(engine: Path) -> list[dict[str, Any]]:
    """Return all images of an engine. It lists those of the same second in any order."""
    status, said = ask(engine / "sock", "GET", "/images/json?all=1")
    assert status == 200
    return sorted(json.loads(said), key=lambda image: image["Id"])


def run(here: Instance, *args: str) -> subprocess.CompletedProcess[bytes]:
    return here.run("run-local", "--file", str(here.root / "job.yaml"), *args)


def test_the_same_verdict_in_a_container(here: Instance):
    """The flag decides over MODE, and the file over neither; the exit code is the command's."""
    here.job_file(JOB)
    done = run(here, "--sandbox", "container", "--runner-image", IMAGE)
    assert (done.stdout, done.returncode) == (b"yes\n/job/src\n1000\n", 3), done.stderr
    assert b"container" in done.stderr
    here.extra_env |= {"MODE": "cloud", "RUNNER_IMAGE": IMAGE}
    assert run(here).stdout.startswith(b"yes\n")
    assert run(here, "--sandbox", "filesystem").stdout.startswith(b"\n/job/src\n")


def test_who_names_the_image(here: Instance):
    """Flag, job file, environment, configuration, in this order."""
    config = here.root / "config.toml"
    config.write_text('[local]\ncontainer_image = "from:config"\n')
    here.extra_env["RUNNER_CONFIG"] = str(config)
    expected = [("from:config", f"file {config}")]
    here.job_file("job_command: 'true'\nsandbox: {kind: container}\n")

    def named(*args: str) -> tuple[str, str]:
        document = json.loads(run(here, "--dry-run", "--json", *args).stdout)
        image = document["container"]["image"]
        assert image["state"] == "missing"
        return image["name"], image["origin"]

    assert named() == expected[0]
    here.extra_env["RUNNER_IMAGE"] = "from:environment"
    assert named() == ("from:environment", "environment RUNNER_IMAGE")
    here.job_file("job_command: 'true'\ncontainer_image: from:file\nsandbox: {kind: container}\n")
    assert named() == ("from:file", "job file")
    assert named("--runner-image", "from:flag") == ("from:flag", "flag")
    assert "containers" in here.fails(
        "run-local", "-f", str(here.root / "job.yaml"), "--sandbox", "filesystem",
        "--runner-image", "x", code=2,
    )  # fmt: skip


def test_a_dry_run_says_the_line_and_touches_nothing(here: Instance, container_engine: Path):
    """Secrets are names in it; the image is looked for; the engine has no more than before."""
    before = images(container_engine)
    here.extra_env |= {"TOKEN": SECRET, "API_KEY": SECRET}
    here.job_file(
        "job_command: [make, 'a b']\n"
        f"container_image: {IMAGE}\n"
        "env: {TOKEN: '${secret:local:TOKEN}', NPM_PASSWORD: hunter22-hunter22, PLAIN: 'x y'}\n"
        "sandbox: {kind: container, network: 'off', memory: 64MiB, pids: 99}\n"
    )
    done = run(here, "--dry-run")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert SECRET not in text
    assert "hunter22" not in text
    assert f"{IMAGE} (by job file) is here: " in text
    line = next(row for row in text.splitlines() if row.startswith("equivalent:"))
    words = shlex.split(line.removeprefix("equivalent:"))
    assert words[:2] == ["docker", "run"]
    assert words[-2:] == [IMAGE, "a b"]
    pairs = list(itertools.pairwise(words))
    for pair in (
        ("--env", "TOKEN"), ("--env", "NPM_PASSWORD"), ("--env", "PLAIN=x y"), ("--user", "1000:1000"),
        ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges:true"), ("--network", "none"),
        ("--memory", str(64 << 20)), ("--pids-limit", "99"), ("--entrypoint", "make"),
    ):  # fmt: skip
        assert pair in pairs, pair
    assert "--read-only" in words
    assert images(container_engine) == before
    missing = run(here, "--dry-run", "--runner-image", "nobody/nothing:7")
    assert missing.returncode == 125
    here.extra_env["RUNNER_CONTAINER_PULL"] = "missing"
    fetched = run(here, "--dry-run", "--runner-image", "nobody/nothing:7")
    assert (fetched.returncode, b"would be fetched" in fetched.stdout) == (0, True)
    here.extra_env["RUNNER_CONTAINER_ENGINE"] = f"unix://{here.root}/none.sock"
    gone = run(here, "--dry-run")
    assert (gone.returncode, b"cannot be looked for" in gone.stdout) == (125, True)


def test_without_a_policy_the_reason_is_the_end(here: Instance):
    """An image that nobody has, one without a shell, and an engine that is not there: each says so, and nothing is run."""
    here.job_file("job_command: echo ran\nsandbox: {kind: container}\n")
    for image, reason in (("nobody/nothing:7", b"image missing"), (EMPTY_IMAGE, b"/bin/sh")):
        done = run(here, "--runner-image", image)
        assert (done.returncode, done.stdout) == (125, b"")
        assert reason in done.stderr
    assert b"no default is set" in run(here).stderr
    here.extra_env["RUNNER_CONTAINER_ENGINE"] = f"unix://{here.root}/none.sock"
    done = run(here, "--runner-image", IMAGE)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"engine gone" in done.stderr


@pytest.mark.alone
def test_what_a_killed_run_leaves_is_listed_and_removed(here: Instance, container_engine: Path):
    """``gc`` shows the containers and volumes of a run-local that is dead, and none of one that lives."""
    here.job_file("job_command: echo up; sleep 1000\nsandbox: {kind: container}\n")
    args = ("run-local", "-q", "-f", str(here.root / "job.yaml"), "--runner-image", IMAGE)
    with here.popen(*args, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == b"up\n"
            assert json.loads(here.ok("gc", "--dry-run", "--json")) == []
        finally:
            running.kill()
    listed = json.loads(here.ok("gc", "--dry-run", "--json"))
    kinds = {row["kind"] for row in listed if row["action"] == "would remove"}
    assert {"container", "volume", "folder"} <= kinds
    assert all(row["attempt"] == 1 for row in listed if row["kind"] in ("container", "volume"))
    assert containers(container_engine) != []
    here.ok("gc")
    wait_until(lambda: containers(container_engine) == [], 20)
    assert json.loads(here.ok("gc", "--dry-run", "--json")) == []


def test_the_next_run_removes_what_a_killed_one_left(here: Instance, container_engine: Path):
    """Also one that needs no container itself."""
    here.job_file("job_command: echo up; sleep 1000\n")
    args = ("run-local", "-q", "-f", str(here.root / "job.yaml"), "--runner-image", IMAGE)
    with here.popen(*args, "--sandbox", "container", stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        os.kill(running.pid, signal.SIGKILL)
    here.job_file("job_command: 'true'\n")
    assert run(here).returncode == 0
    assert containers(container_engine) == []


def test_triggers_and_variables_pass_through_a_container(here: Instance):
    """What a job leaves is read, and what it may know is there; the program is installed for images that have Python."""
    command = (
        'ls /job/.runner/bin; cat "$RC_WF_VARS_FILE" 2>/dev/null; '
        'echo \'{"jobs": [{"job_name": "next", "job_command": "cat $RC_WF_VARS_FILE; echo; exit 4", '
        '"container_image": "%s"}], "workflow": {"vars": {"A": 1}}}\' > /job/triggers.json # runnerlib'
    )
    here.job_file(f"job_command: {json.dumps(command % IMAGE)}\n")
    done = run(here, "--auto-continue", "--sandbox", "container", "--runner-image", IMAGE)

    assert done.returncode == 4, done.stderr
    assert done.stdout == b'job | runnerlib\nnext | {"A":1}\n'
