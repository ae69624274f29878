"""Every example runs as it is, here and through the daemon, with the same ends and the same logs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instance import Instance

EXAMPLES = Path(__file__).parents[2] / "examples" / "jobs"
PASSWORD = "correct-horse-9"
SECRETS = {
    "npm/tokens:NPM_TOKEN": "npm-value-of-the-token",
    "registry/creds:PASSWORD": "registry-value-one",
    "runner/deploy:HOST": "host-a.internal.example",
    "runner/deploy:USER": "deployer-account",
    "runner/deploy:DB_PASSWORD": "database-value-two",
    "runner/deploy:JWT_SECRET": "signing-value-three",
}
OK = ("SUCCEEDED", 0)
EXPECTED: dict[str, dict[str, tuple[tuple[str, int | None], str]]] = {
    "build-with-a-secret": {
        "build-with-a-secret": (
            OK,
            "building for test with a token of 22 characters: ***\ntests passed\n",
        )
    },
    "multi-stage": {
        "multi-stage": (OK, "built 1.0.0\npushing app:v1.0.0 as ci with ***\n"),
        "deploy": (OK, "deploying app:v1.0.0 to staging\n"),
    },
    "deploy-runner": {"deploy-runner": (OK, "deploying to ***@*** with *** and ***\n")},
    "fan-out": {
        "fan-out": (OK, ""),
        "target[0]": (OK, "for linux\n"),
        "target[1]": (OK, "for darwin\n"),
        "target[2]": (("FAILED", 1), "for windows\n"),
        "tell": (OK, "something has failed\n"),
    },
    "steps": {
        "steps": (("FAILED", 3), "==> compile\n==> check\ncompiled\n==> fail\n"),
    },
    "older-dialect": {"older-dialect": (OK, "hello from /job/src\n")},
}
PIPELINE = {
    "build": (OK, "built 1.0.0\n"),
    "check[0]": (OK, "unit of app:1.0.0\n"),
    "check[1]": (OK, "style of app:1.0.0\n"),
    "deploy": (OK, "deploying app:latest to test\n"),
    "tell": (("CANCELLED", None), ""),
}


@pytest.fixture(scope="module")
def installation() -> Iterator[Instance]:
    """One with the secrets in its store, running."""
    root = Path(tempfile.mkdtemp(prefix="runner-e2e-"))
    made = Instance(root, {"RUNNER_SECRETS_PASSWORD": PASSWORD})
    made.ok("secrets", "init")
    for name, value in SECRETS.items():
        made.ok("secrets", "set", *name.split(":"), "--stdin", stdin=value.encode())
    made.start("--no-keyring")
    yield made
    made.stop()
    made.wait_gone()
    shutil.rmtree(root)


def through_daemon(
    installation: Instance, jobs: list[dict[str, Any]]
) -> dict[str, tuple[tuple[str, int | None], str]]:
    """Return how jobs and all that they trigger end in the daemon, with their logs, by name."""
    found = {}
    left = [job["id"] for job in jobs]
    while left:
        job = installation.wait(left.pop(0))
        shown = json.loads(installation.ok("jobs", "show", job["id"], "--json"))
        left += shown["children"]
        log = installation.log(job["id"]).decode() if shown["attempt"] else ""
        found[job["name"]] = ((job["state"], job["exit_code"]), log)
    return found


def by_name(output: str) -> dict[str, str]:
    """Return the lines of each job of a run here."""
    logs: dict[str, str] = {}
    for line in output.splitlines():
        name, _, text = line.partition(" | ")
        logs[name.strip()] = logs.get(name.strip(), "") + text + "\n"
    return logs


def test_every_example_is_tried() -> None:
    """A new one needs its row here."""
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*EXPECTED, "pipeline"}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_ends_alike_here_and_in_the_daemon(installation: Instance, name: str) -> None:
    """The same job file, the same verdict, the same log; no secret in either."""
    expected = EXPECTED[name]
    path = str(EXAMPLES / f"{name}.yaml")
    here = installation.run("run-local", "-f", path, "--auto-continue")
    job = json.loads(installation.ok("jobs", "submit", "--file", path, "--json"))

    assert here.returncode == max(code or 0 for (_, code), _ in expected.values())
    logs = {job_name: log for job_name, (_, log) in expected.items() if log}
    assert by_name(here.stdout.decode()) == logs, here.stderr.decode()
    assert through_daemon(installation, [job]) == expected
    assert not any(
        value in here.stdout.decode() + here.stderr.decode() for value in SECRETS.values()
    )


def test_the_pipeline_ends_alike_too(installation: Instance) -> None:
    """With variables that pass from job to job."""
    path = str(EXAMPLES / "pipeline.yaml")
    here = installation.run("pipeline", "run", path)
    record = json.loads(installation.ok("pipeline", "run", path, "--submit", "--json"))

    assert here.returncode == 0, here.stderr.decode()
    assert by_name(here.stdout.decode()) == {k: log for k, (_, log) in PIPELINE.items() if log}
    assert through_daemon(installation, record["jobs"]) == PIPELINE
