"""``runner parity``: one job in both kinds of sandbox of this machine, with a real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.container_engine import IMAGE
from tests.e2e.instance import Instance
from tests.e2e.test_cloud_mode import containers

SECRET = "canary-3b9e0c11d2"


@pytest.fixture
def here(instance: Instance, container_engine: Path) -> Iterator[Instance]:
    """Somebody with an engine and an image; the engine holds nothing of them afterwards."""
    instance.extra_env |= {
        "RUNNER_CONTAINER_ENGINE": f"unix://{container_engine}/sock",
        "RUNNER_CONTAINER_PULL": "never",
        "RUNNER_IMAGE": IMAGE,
    }
    yield instance
    assert containers(container_engine) == []
    assert instance.workspaces() == []


def parity(here: Instance, job: str, code: int) -> dict[str, Any]:
    """Compare a job; return the document."""
    (here.root / "src").mkdir(exist_ok=True)
    (here.root / "src" / "given.txt").write_text("given\n")
    here.job_file(f"source_type: copy\nsource_path: src\n{job}")
    done = here.run("parity", str(here.root / "job.yaml"), "--json", timeout=120)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert SECRET.encode() not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_same_verdict(here: Instance):
    """An end that is no success is the same one; what differs by design is told, and no value of a variable is."""
    here.extra_env |= {"TOKEN": SECRET, "DEPLOY_KEY": SECRET}
    found = parity(
        here,
        "job_command: 'mkdir out; echo made > out/a; chmod +x out/a; rm given.txt; ln -s a out/l; ln -s $TOKEN out/t; : > out/$TOKEN; exit 3'\n"
        "env: {TOKEN: '${secret:local:TOKEN}', DEPLOY_KEY: '${secret:local:DEPLOY_KEY}', PLAIN: x}\n"
        "sandbox: {container_only: [DEPLOY_KEY]}\n",
        0,
    )
    assert (found["same"], found["differences"]) == (True, [])
    for side in ("filesystem", "container"):
        seen = found[side]
        assert (seen["end_reason"], seen["exit_code"]) == ("EXITED", 3)
        assert seen["working_dir"] == "/job/src"
        assert {"TOKEN", "PLAIN", "RUNNER_JOB_ID", "PATH", "HOME"} <= {*seen["variables"]}
        assert seen["changes"]["given.txt"] == "absent"
        assert seen["changes"]["out/l"] == "-> a"
        assert seen["changes"]["out/a"].endswith(" executable")
    by_design = {each["name"]: each["why"] for each in found["by_design"]}
    assert by_design["FROM_IMAGE"] == "the image sets it"
    assert by_design["DEPLOY_KEY"] == by_design["RUNNER_WITHHELD"] == "sandbox.container_only"
    assert any(".git" in text for text in found["not_compared"])


def test_each_difference_is_told(here: Instance):
    """A job that asks where it is: its exit code, and the files that it makes."""
    job = (
        'job_command: \'test -n "$FROM_IMAGE" && echo in > where || echo out > where; echo same > same;'
        ' test -n "$FROM_IMAGE"\'\n'
    )
    found = parity(here, job, 1)
    differing = {(each["what"], each["name"]) for each in found["differences"]}
    assert differing == {("exit_code", None), ("change", "where")}
    assert found["same"] is False
    outputs = parity(here, f"{job}outputs: [same]\n", 1)
    assert [each["what"] for each in outputs["differences"]] == ["exit_code"]
    assert outputs["filesystem"]["outputs"] == outputs["container"]["outputs"] != {}
    done = here.run("parity", str(here.root / "job.yaml"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, b"1 differences")
    assert b"differs: exit_code: filesystem 1, container 0" in done.stdout


def test_without_an_engine_there_is_no_verdict(here: Instance):
    """Said once, with the reason, and not taken for a difference; a fallback of the job means nothing here."""
    here.extra_env["RUNNER_CONTAINER_ENGINE"] = f"unix://{here.root}/none.sock"
    found = parity(here, "job_command: echo hi\nsandbox: {fallback: allow}\n", 125)
    assert found["same"] is None
    assert (found["container"]["end_reason"], found["filesystem"]["exit_code"]) == (
        "ENGINE_GONE",
        0,
    )
