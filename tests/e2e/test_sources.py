"""Sources of jobs from outside: both ways to run a job check out the same, and passwords stay out of everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.instance import Instance
from tests.integration.git_servers import Repository, serve
from tests.waiting import wait_until

PASSWORD = "canary-" + "z3" * 12

JOB = """\
job_command: |
  set -e
  cat a $RUNNER_CI_SOURCE_DIR/tool
  git -c safe.directory='*' log --format=%H -1
  git -c safe.directory='*' config --list --local
  if echo x > $RUNNER_CI_SOURCE_DIR/new 2>&-; then echo WRITTEN; fi
source: {type: git, url: "URL", ref: main, depth: 1}
source_credentials: ${secret:local:GIT_TOKEN}
ci_source: {type: git, url: "CI_URL"}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served" / "repo")
    made.commit(a="from git\n")
    return made


def write_job(instance: Instance, repository: Repository, url: str, tmp_path: Path) -> str:
    scripts = Repository(tmp_path / "scripts")
    scripts.commit(tool="from ci\n")
    return instance.job_file(JOB.replace("CI_URL", scripts.url).replace("URL", url))


def test_the_same_in_both_ways(instance: Instance, repository: Repository, tmp_path: Path) -> None:
    """run-local and the daemon give the job the same; the token is in no file, log or record."""
    instance.extra_env["GIT_TOKEN"] = PASSWORD
    instance.start("--secret", "GIT_TOKEN")
    with serve(repository.path.parent, "x-access-token", PASSWORD) as server:
        path = write_job(instance, repository, server.url(repository), tmp_path)
        here = instance.run("run-local", "--file", path)
        job_id = instance.ok("jobs", "submit", "--file", path).strip()
        job = instance.wait(job_id)

    log = instance.log(job_id)
    assert (here.returncode, job["state"]) == (0, "SUCCEEDED"), here.stderr.decode() + str(job)
    assert here.stdout == log
    source = job["attempts"][0]["source"]
    assert source["commit"] == repository.head()
    assert f"source:         commit {repository.head()}" in instance.ok("jobs", "show", job_id)
    assert f"commit {source['ci_commit']}" in instance.ok("jobs", "show", job_id)
    assert log.startswith(b"from git\nfrom ci\n" + repository.head().encode())
    assert b"remote.origin.url=" + server.url(repository).encode() in log
    assert b"WRITTEN" not in log
    for place in instance.state.rglob("*"):
        if place.is_file() and not place.is_symlink():
            assert PASSWORD.encode() not in place.read_bytes(), place
    assert not list((instance.state / "sources" / "work").iterdir())


def test_a_source_that_cannot_be_had(started: Instance, repository: Repository) -> None:
    """The end of the job says it in git's words; the exit code is the runner's."""
    with serve(repository.path.parent, "me", PASSWORD) as server:
        url = server.url(repository)
        path = started.job_file(f"job_command: echo\nsource: {{type: git, url: '{url}'}}\n")
        done = started.run("jobs", "submit", "--file", path, "--wait", "--json")
        here = started.run("run-local", "--file", path)
    job = json.loads(done.stdout)
    assert (job["end_reason"], done.returncode, here.returncode) == ("SOURCE_FAILED", 125, 125)
    assert "source: git" in job["message"]
    assert "terminal prompts disabled" in job["message"]
    assert "terminal prompts disabled" in here.stderr.decode()


def test_cancel_while_it_clones(started: Instance, repository: Repository) -> None:
    """The job ends at once, and so do git's processes."""
    with serve(repository.path.parent) as server:
        server.hold.clear()
        url = server.url(repository)
        path = started.job_file(f"job_command: echo\nsource: {{type: git, url: '{url}'}}\n")
        job_id = started.ok("jobs", "submit", "--file", path).strip()
        wait_until(lambda: any("upload-pack" in one for one in server.requests), 30, "a request")
        assert _git_processes(started)
        started.ok("jobs", "cancel", job_id)
        assert started.wait(job_id)["state"] == "CANCELLED"
        assert not _git_processes(started)


def test_a_time_out_counts_the_clone(started: Instance, repository: Repository) -> None:
    """A server that does not answer does not hold a job longer than its bound."""
    with serve(repository.path.parent) as server:
        server.hold.clear()
        url = server.url(repository)
        text = f"job_command: echo\ntimeout: 1\nsource: {{type: git, url: '{url}'}}\n"
        done = started.run("run-local", "--file", started.job_file(text))
    assert done.returncode == 124, done.stderr.decode()


def test_git_dies_with_its_agent_runner(started: Instance, repository: Repository) -> None:
    """A kill -9 leaves no git behind, and the job runs again."""
    with serve(repository.path.parent) as server:
        server.hold.clear()
        url = server.url(repository)
        path = started.job_file(f"job_command: cat a\nsource: {{type: git, url: '{url}'}}\n")
        job_id = started.ok("jobs", "submit", "--file", path).strip()
        wait_until(lambda: any("upload-pack" in one for one in server.requests), 30, "a request")
        before = _git_processes(started)
        started.kill("agent-runner")
        wait_until(
            lambda: not before & _git_processes(started),
            30,
            lambda: f"{before} of {started.processes_of_state()}{started.tails()}",
        )
        server.hold.set()
        job = started.wait(job_id)
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2), f"{job}{started.tails()}"
    assert started.log(job_id) == b"from git\n"


def _git_processes(instance: Instance) -> set[str]:
    """Return the pids of git; one that is ending has no words any more."""
    lines = [line.split() for line in instance.processes_of_state()]
    return {pid for pid, *words in lines if words and "git" in words[0]}


@pytest.mark.parametrize("way", [("run-local",), ("jobs", "submit", "--wait")])
def test_credentials_that_are_missing(
    started: Instance, repository: Repository, way: tuple[str, ...]
) -> None:
    """They are named like any other reference, and nothing is fetched."""
    with serve(repository.path.parent) as server:
        url = server.url(repository)
        text = f"job_command: echo\nsource: {{type: git, url: '{url}', credentials: '${{secret:git:T}}'}}\n"
        done = started.run(*way, "--file", started.job_file(text))
    assert done.returncode == 8
    assert b"${secret:git:T}" in done.stdout + done.stderr
    assert not server.requests


def test_a_dry_run_shows_where_sources_are_from(instance: Instance) -> None:
    """With references as they are written."""
    path = instance.job_file(
        "job_command: x\nsource: {type: git, url: 'https://h/r', ref: v1, credentials: '${secret:local:T}'}\n"
    )
    done = instance.run("run-local", "--dry-run", "--file", path)
    assert b"source:     git https://h/r v1 ${secret:local:T}\n" in done.stdout
