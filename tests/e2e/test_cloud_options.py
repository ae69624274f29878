"""What an operator sets for jobs in containers, as they find it: a registry with a password, a cache, hosts, and where they run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.engine_keeper import ask
from tests.contract.image_registry import running_registry
from tests.e2e.instance import Instance

CANARY = "canary-0f-a-registry"
CONFIG = """
[containers]
rewrite_localhost = true
extra_hosts = ["db.test=10.1.2.3", "host.docker.internal=10.9.9.9"]
[containers.execution_mode]
here = "local"
[[containers.registries]]
host = "127.0.0.1:{port}"
username = "bot"
password = "${{secret:local:REGISTRY}}"
"""
JOB = """
container_image: {image}
job_command: |
  echo "version $VERSION"; echo x >>/cache/f; wc -l </cache/f; echo $API; echo "$SECRET_URL"
  grep -c db.test /etc/hosts
env: {{API: "http://localhost:5010/a", SECRET_URL: "${{secret:local:URL}}"}}
sandbox: {{cache: true, reuse: project}}
"""


@pytest.fixture
def cloud(instance: Instance, container_engine: Path):
    """An installation whose jobs run in containers of images from a registry that wants a password."""
    with running_registry() as registry:
        registry.login = ("bot", CANARY)
        registry.put("1", "VERSION=1", "PATH=/bin")
        config = instance.root / "config.toml"
        config.write_text(CONFIG.format(port=registry.port))
        instance.extra_env |= {
            "MODE": "cloud",
            "RUNNER_CONFIG": str(config),
            "RUNNER_CONTAINER_ENGINE": f"unix://{container_engine}/sock",
            "REGISTRY": CANARY,
            "URL": "http://user:canary-in-url@localhost:1/",
        }
        yield instance, registry
        instance.stop()
    _, volumes = ask(container_engine / "sock", "GET", "/volumes")
    for name in (part.split(b'"')[0].decode() for part in volumes.split(b'"Name":"')[1:]):
        assert name.startswith("runner-cache-")
        ask(container_engine / "sock", "DELETE", f"/volumes/{name}")


def test_what_jobs_find(cloud):
    """The image comes once, with the password of the secret, and the log says so; the next job has what the first one left."""
    instance, registry = cloud
    instance.start("--secret", "REGISTRY", "--secret", "URL")
    instance.job_file(JOB.format(image=f"{registry.name}:1"))
    logs = []
    for _ in range(2):
        job_id = instance.ok("jobs", "submit", "--file", str(instance.root / "job.yaml")).strip()
        job = instance.wait(job_id)
        assert job["state"] == "SUCCEEDED", (job, instance.log(job_id))
        assert "processes" in job["sandbox"]["walls_not_held"]
        logs.append(instance.log(job_id).decode().splitlines())
    assert logs[0][0] == f"runner: fetching the image {registry.name}:1"
    assert logs[0][1].startswith("runner: fetched the image")
    assert logs[0][2:] == ["version 1", "1", "http://host.docker.internal:5010/a", "***", "1"]
    assert logs[1] == ["version 1", "2", *logs[0][4:]]
    documents = json.loads(instance.ok("gc", "--dry-run", "--json"))
    kept = [each for each in documents if each["kind"] == "cache"]
    assert [(each["action"], each["path"][-8:]) for each in kept] == [("keep", "-default")]
    # The image of the job that worked is that of the next one, which names none.
    remembered = instance.submit("echo version $VERSION")
    assert instance.wait(remembered)["state"] == "SUCCEEDED"
    assert instance.log(remembered) == b"version 1\n"


def test_a_project_that_runs_here(cloud):
    """Its jobs are in no container although the mode says so, and nobody asks for an image."""
    instance, _ = cloud
    instance.start("--secret", "REGISTRY", "--secret", "URL")
    instance.job_file("project: here\njob_command: test ! -e /.dockerenv\n")
    job_id = instance.ok("jobs", "submit", "--file", str(instance.root / "job.yaml")).strip()
    job = instance.wait(job_id)
    assert (job["state"], job["sandbox"]["kind"]) == ("SUCCEEDED", "filesystem")


def test_run_local_does_the_same(cloud):
    """The password of the registry comes from where the job's secrets do; without it the run says what is missing."""
    instance, registry = cloud
    instance.job_file(f"container_image: {registry.name}:1\njob_command: echo version $VERSION\n")
    words = ("run-local", "--quiet", "--file", str(instance.root / "job.yaml"))
    password = instance.extra_env.pop("REGISTRY")
    done = instance.run(*words)
    assert done.returncode == 125
    assert b"no password for the registry 127.0.0.1" in done.stderr
    instance.extra_env["REGISTRY"] = password
    done = instance.run(*words)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, b"version 1"), done.stderr
    assert CANARY.encode() not in done.stdout + done.stderr
    instance.job_file("project: here\njob_command: test ! -e /.dockerenv\n")
    assert instance.run(*words).returncode == 0
