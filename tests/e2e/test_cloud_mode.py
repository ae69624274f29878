"""MODE=cloud as a person uses it: the same job file, in containers of a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.container_engine import IMAGE
from tests.contract.engine_keeper import ask
from tests.e2e.instance import Instance
from tests.waiting import wait_until


def containers(engine: Path) -> list[bytes]:
    """Return everything that the engine holds beside images."""
    _, listed = ask(engine / "sock", "GET", "/containers/json?all=1")
    _, volumes = ask(engine / "sock", "GET", "/volumes")
    return [part for part in (listed.strip(), volumes) if b'"Name' in part]


def owners(engine: Path) -> set[str]:
    """Return whose containers the engine holds."""
    _, listed = ask(engine / "sock", "GET", "/containers/json?all=1")
    return {each["Labels"]["runner.owner"] for each in json.loads(listed)}


@pytest.fixture
def cloud(instance: Instance, container_engine: Path) -> Iterator[Instance]:
    """An installation in cloud mode; the engine holds nothing of it afterwards."""
    instance.extra_env |= {
        "MODE": "cloud",
        "RUNNER_CONTAINER_ENGINE": f"unix://{container_engine}/sock",
        "RUNNER_IMAGE": IMAGE,
        "RUNNER_CONTAINER_PULL": "never",
    }
    yield instance
    instance.stop()
    assert containers(container_engine) == []


def test_a_job_file_runs_in_a_container(cloud: Instance, tmp_path: Path):
    """Source, exit code, a masked secret, and what was recorded: the verdict of local mode, from another place."""
    (tmp_path / "hello.txt").write_text("hi\n")
    cloud.extra_env["API"] = "canary-9f8e7d6c5b"
    assert "sandbox: container" in cloud.start("--secret", "API")
    assert cloud.status()["mode"] == "cloud"
    cloud.job_file(
        "name: build\n"
        'job_command: "cat hello.txt; echo $FROM_IMAGE $TOKEN; id -u; exit 3"\n'
        f"source_type: copy\nsource_path: {tmp_path}\n"
        "env: {TOKEN: '${secret:local:API}'}\n"
        "sandbox: {min: bwrap, network: 'off'}\n"
    )
    job_id = cloud.ok("jobs", "submit", "--file", str(cloud.root / "job.yaml")).strip()
    job = cloud.wait(job_id)
    assert (job["state"], job["end_reason"], job["exit_code"]) == ("FAILED", "EXITED", 3)
    assert (job["sandbox"]["kind"], job["sandbox"]["tier"]) == ("container", "container")
    assert cloud.log(job_id) == b"hi\nyes ***\n1000\n"


def test_ends_have_their_own_reasons(cloud: Instance):
    """Memory, time, a stop, and a program that is not there are told apart as in local mode."""
    cloud.start()
    cloud.job_file(
        "job_command: head -c 200m /dev/zero | tail\nsandbox: {memory: 32MiB}\n", "memory.yaml"
    )
    hungry = cloud.ok("jobs", "submit", "--file", str(cloud.root / "memory.yaml")).strip()
    absent = cloud.ok("jobs", "submit", "--", "no-such-program").strip()
    cancelled = cloud.submit("echo up; sleep 1000")
    assert cloud.wait(hungry)["end_reason"] == "OUT_OF_MEMORY"
    end = cloud.wait(absent)
    assert (end["end_reason"], end["exit_code"]) == ("EXITED", 127)
    cloud.wait_log(cancelled, b"up")
    cloud.ok("jobs", "cancel", cancelled)
    assert cloud.wait(cancelled)["end_reason"] == "CANCELLED"


def test_an_image_that_nobody_has(cloud: Instance):
    """The job says so and counts as the runner's failure, not the command's."""
    cloud.extra_env["RUNNER_IMAGE"] = "nobody/nothing:7"
    cloud.start()
    job_id = cloud.submit("true")
    job = cloud.wait(job_id)
    assert (job["end_reason"], job["exit_code"]) == ("IMAGE_MISSING", None)
    assert "nobody/nothing:7" in job["message"]
    assert cloud.run("jobs", "wait", job_id).returncode == 125


def test_a_killed_agent_runner_leaves_no_container(cloud: Instance, container_engine: Path):
    """Its successor removes what it left, and the job runs again to its end."""
    cloud.start()
    job_id = cloud.submit('echo attempt $RUNNER_ATTEMPT; [ "$RUNNER_ATTEMPT" = 2 ] || sleep 1000')
    cloud.wait_log(job_id, b"attempt 1")
    assert containers(container_engine) != []
    cloud.kill("agent-runner")
    job = cloud.wait(job_id)
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
    wait_until(lambda: containers(container_engine) == [], 20)


@pytest.mark.alone
def test_containers_of_an_agent_runner_that_is_no_more(cloud: Instance, container_engine: Path):
    """A start with fewer agent-runners removes them before the attempts are run again, and does not wait for `runner gc`."""
    cloud.start("--agent-runners", "2", "--slots", "1")
    ids = [cloud.submit("echo up; sleep 1000") for _ in range(2)]
    for job_id in ids:
        cloud.wait_log(job_id, b"up")
    assert len(owners(container_engine)) == 2
    assert json.loads(cloud.ok("gc", "--dry-run", "--json")) == []
    cloud.kill_all()
    listed = json.loads(cloud.ok("gc", "--dry-run", "--json"))
    for kind in ("container", "volume"):
        rows = [row for row in listed if row["kind"] == kind]
        assert {row["job_id"] for row in rows} == {*ids}
        assert {row["action"] for row in rows} == {"would remove"}
    cloud.start("--agent-runners", "1", "--slots", "1")
    assert not any(owner.endswith("-2") for owner in owners(container_engine))
    assert "containers_kept" not in (cloud.state / "logs" / "daemon.log").read_text()


def test_no_engine_is_one_clear_line(instance: Instance, tmp_path: Path):
    """Start says which part is missing, and leaves nothing running."""
    address = f"unix://{tmp_path}/none.sock"
    instance.extra_env["RUNNER_CONTAINER_ENGINE"] = address
    said = instance.fails("local", "start", "--no-input", "--mode", "cloud", code=1)
    assert "container engine" in said
    instance.extra_env["MODE"] = "sky"
    said = instance.fails("local", "start", "--no-input", code=2)
    assert "MODE" in said
    assert "local, cloud" in said
