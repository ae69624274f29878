"""Job files from outside: `runner validate`, `runner schema`, and files laid over a job file, in both ways to run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.instance import Instance

PROJECT = Path(__file__).parents[2]
EXAMPLES = [*(PROJECT / "examples").rglob("*.yaml"), *(PROJECT / "jobs").glob("*.yaml")]


def test_validate(instance: Instance) -> None:
    """Good files are named, bad ones are told with places; all of them are looked at; nothing is made."""
    good = instance.job_file("job_command: x\n", "good.yaml")
    bad = instance.job_file("job_comand: x\ntimeout: soon\n", "bad.yaml")

    done = instance.run("validate", bad, good, "no-such.yaml")

    assert (done.returncode, done.stdout.decode()) == (2, f"{good}: valid\n")
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith(f"runner: {bad}:1:1: job_comand: unknown field")
    assert lines[1] == f"runner: {bad}:2:10: timeout: must be a number"
    assert "no-such.yaml" in lines[2]
    assert instance.ok("validate", good) == f"{good}: valid\n"
    assert not instance.state.exists()


def test_validate_as_json(instance: Instance) -> None:
    """One file is an object, several are a list."""
    good = instance.job_file("job_command: x\n", "good.yaml")
    bad = instance.job_file("x: y\n", "bad.yaml")
    assert json.loads(instance.ok("validate", good, "--json")) == {
        "file": good,
        "valid": True,
        "problems": [],
    }
    done = instance.run("validate", good, bad, "--json")
    first, second = json.loads(done.stdout)
    assert (done.returncode, first["valid"], second["valid"]) == (2, True, False)
    assert second["problems"][0].startswith(f"{bad}:1:1: ")


def test_validate_reads_standard_input(instance: Instance) -> None:
    """Like every command that takes a job file."""
    assert instance.ok("validate", "-", stdin=b"job_command: x\n") == "-: valid\n"


def test_validate_knows_pipelines(instance: Instance) -> None:
    """A file with ``jobs`` is one; their places are told, too."""
    bad = instance.job_file("jobs:\n  a: {job_command: x, depends_on: [b]}\n", "bad.yaml")
    done = instance.run("validate", bad)
    assert done.returncode == 2
    assert done.stderr.decode() == f"runner: {bad}:2:23: jobs.a.depends_on: there is no job 'b'\n"


@pytest.mark.parametrize("path", sorted(EXAMPLES), ids=lambda path: path.name)
def test_the_examples_are_valid(instance: Instance, path: Path) -> None:
    """What people copy is right."""
    instance.ok("validate", str(path))


def test_the_schema(instance: Instance) -> None:
    """It is JSON, and says how an editor takes it."""
    schema = json.loads(instance.ok("schema", "job"))
    assert "yaml-language-server" in schema["$comment"]
    assert "job_command" in schema["properties"]


@pytest.mark.parametrize("way", [("run-local", "-q"), ("jobs", "submit", "--follow")])
def test_files_laid_over_a_job_file(started: Instance, way: tuple[str, ...]) -> None:
    """In order; a reference gives way to plain text only where that is allowed."""
    job = started.job_file(
        "command: 'echo $A $B $T'\nenv: {A: '1', B: '1', T: '${secret:local:T}'}"
    )
    one = started.job_file("env: {A: '2', B: '2'}\n", "one.yaml")
    two = started.job_file('{"environment": {"B": "3", "T": "plain"}}', "two.json")
    laid = ("--file", job, "--input", one, "--input", two)

    error = started.fails(*way, *laid, code=2)
    assert f"{two}:1:33: environment.T: replaces a secret reference by plain text" in error
    done = started.run(*way, *laid, "--allow-secret-overrides")
    assert (done.returncode, done.stdout) == (0, b"2 3 plain\n"), done.stderr.decode()
    assert "--input" in started.fails("jobs", "submit", "--input", one, "--", "true", code=2)


def test_variables_of_the_caller(instance: Instance) -> None:
    """Only when they are asked for."""
    instance.extra_env["TAG"] = "v1"
    path = instance.job_file("command: 'echo $A $B'\nenv: {A: '${TAG}', B: '${NOPE:-d}'}\n")
    assert instance.ok("run-local", "-q", "--file", path) == "${TAG} ${NOPE:-d}\n"
    assert instance.ok("run-local", "-q", "--env-passthrough", "--file", path) == "v1 d\n"


def test_a_secret_of_the_caller(instance: Instance) -> None:
    """What is a secret by its name there is hidden whatever the job calls it, and a dry run does not show it."""
    instance.extra_env["NPM_TOKEN"] = "Zt6-passed-through"
    path = instance.job_file("command: 'echo ${#A} $A'\nenv: {A: '${NPM_TOKEN}'}\n")
    told = ("--env-passthrough", "--file", path)
    assert instance.ok("run-local", "-q", *told) == "18 ***\n"
    shown = instance.ok("run-local", "--dry-run", *told)
    assert "A=${secret:local:NPM_TOKEN}" in shown
    assert "Zt6" not in shown


def test_steps(started: Instance) -> None:
    """Each below its header; the first failure ends the job with its exit code; the same in both ways."""
    path = started.job_file("commands: [{name: build, command: echo b}, 'exit 4', echo never]\n")
    here = started.run("run-local", "-q", "--file", path)
    there = started.run("jobs", "submit", "--follow", "--file", path)
    assert here.stdout == there.stdout == b"==> build\nb\n==> step 2\n"
    assert (here.returncode, there.returncode) == (4, 4)


def test_a_job_that_run_local_must_not_run(started: Instance) -> None:
    """It says so, and the queue takes it."""
    path = started.job_file("command: echo\ndisable_run_local: true\n")
    assert "disable_run_local" in started.fails("run-local", "--file", path, code=2)
    started.ok("jobs", "submit", "--wait", "--file", path)
