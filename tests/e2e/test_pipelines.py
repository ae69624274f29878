"""Pipelines, triggered jobs and watched folders as a user meets them: here and through the daemon, with the same result."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instance import Instance

PIPELINE = """
name: demo
vars: {STAGE: test}
jobs:
  build:
    job_command: |
      echo "built for $(runnerlib vars STAGE)"; runnerlib set-output TAG v1; runnerlib set-var N 2
      mkdir -p dist/bin; echo unit > dist/expected; echo 'echo ran' > dist/bin/tool; chmod 755 dist/bin/tool
    outputs: [dist/**]
  check:
    depends_on: [build]
    inputs: [build]
    for_each: [unit, style]
    outputs: [code]
    job_command: |
      cd "$RUNNER_JOB_ROOT/inputs/build/dist" && bin/tool || exit 7
      echo "$ITEM of $(runnerlib vars build.TAG)"; echo 9 > "$RUNNER_CODE_DIR/code"
      test "$ITEM" = "$(cat expected)"
  tell:
    depends_on: [check]
    inputs: [check]
    condition: any_failed
    outputs: [both]
    job_command: |
      echo "failed with N=$(runnerlib vars N)"; cat "$RUNNER_JOB_ROOT"/inputs/*/code > both
      runnerlib trigger more --input tell --job-command 'exit $(tail -n 1 "$RUNNER_JOB_ROOT/inputs/tell/both")'
  never:
    depends_on: [build]
    condition: failure
    job_command: echo never
"""
ENDS = {
    "build": ("SUCCEEDED", "EXITED", 0),
    "check[0]": ("SUCCEEDED", "EXITED", 0),
    "check[1]": ("FAILED", "EXITED", 1),
    "tell": ("SUCCEEDED", "EXITED", 0),
    "never": ("CANCELLED", "SKIPPED", None),
    "more": ("FAILED", "EXITED", 9),
}
BUILD = """
name: build
source_type: copy
source_path: tree
env: {T: '${secret:local:TOKEN}'}
job_command: |
  python3 - <<'X'
  import os
  from workflow import flush_triggers, trigger_job
  trigger_job("deploy", env={"TOKEN": os.environ["T"], "TARGET": "x"}, depends_on=["build"], condition="success")
  trigger_job("tell", job_command="echo told", depends_on=["deploy"], condition="always")
  flush_triggers()
  X
"""
SECRET = "a-value-of-a-secret-1"


def ends(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str, int | None]]:
    """Return how jobs ended, by name."""
    return {row["name"]: (row["state"], row["end_reason"], row["exit_code"]) for row in rows}


@pytest.fixture
def tree(instance: Instance) -> Path:
    """A job file, and the source that it copies, with the job file of what it triggers."""
    instance.extra_env["TOKEN"] = SECRET
    folder = instance.root / "project"
    (folder / "tree" / "jobs").mkdir(parents=True)
    (folder / "build.yaml").write_text(BUILD)
    (folder / "tree" / "jobs" / "deploy.yaml").write_text(
        "job_command: 'echo \"deploy $TARGET $TOKEN\"; exit 3'\nenv: {TARGET: none}\n"
    )
    return folder


def test_a_pipeline_ends_alike_here_and_submitted(instance: Instance) -> None:
    """The same states, reasons and exit codes; the picture shows them; the exit code is the worst."""
    path = instance.job_file(PIPELINE)
    here = instance.run("pipeline", "run", path, "--json", "--var", "STAGE=dev")
    rows = json.loads(instance.ok("pipeline", "graph", path, "--json"))
    output = here.stderr.decode()

    assert json.loads(here.stdout)["jobs"] == rows
    assert here.returncode == 9, here.stderr.decode()
    assert ends(rows) == ENDS
    assert "build | built for dev\n" in output
    assert "check[1] | ran\n" in output
    assert "check[1] | style of v1\n" in output
    assert "tell     | failed with N=2\n" in output
    assert "▶" not in instance.ok("pipeline", "graph", path)

    instance.start()
    submitted = instance.run("pipeline", "run", path, "--submit", "--wait", "--json")
    record = json.loads(submitted.stdout)
    more = next(row for row in record["jobs"] if row["name"] == "tell")["children"][0]
    rows = json.loads(instance.ok("pipeline", "graph", "--run", record["id"], "--json"))

    assert submitted.returncode == 9, submitted.stderr.decode()
    assert ends(rows) == ENDS
    assert "<svg" in instance.ok("pipeline", "graph", "--run", record["id"], "--format", "svg")
    shown = instance.ok("jobs", "show", more)
    assert f"triggered by:   {next(r for r in rows if r['name'] == 'tell')['id']}" in shown


def test_a_pipeline_that_is_wrong_leaves_nothing(instance: Instance) -> None:
    """One line; nothing runs and nothing is recorded."""
    path = instance.job_file("jobs:\n  a: {command: touch x}\n  b: {command: x, depends_on: [c]}\n")

    assert instance.fails("pipeline", "run", path, code=2).endswith(
        ":3:19: jobs.b.depends_on: there is no job 'c'"
    )
    assert (
        instance.fails("pipeline", "graph", code=2)
        == "runner: there is no record of a run of a pipeline"
    )


def test_an_interrupt_cancels_all(instance: Instance) -> None:
    """What runs is stopped, what waits is cancelled, and the exit code says so."""
    path = instance.job_file(
        "jobs:\n  a: {command: 'echo up; sleep 60'}\n  b: {command: sleep 60}\n  c: {command: x, depends_on: [a]}\n"
        "  d: {command: x, depends_on: [c]}\n"
    )
    process = instance.popen("pipeline", "run", path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"a | up\n"
    process.send_signal(signal.SIGINT)

    assert process.wait(60) == 130
    process.stdout.close()
    rows = json.loads(instance.ok("pipeline", "graph", path, "--json"))
    assert {row["state"] for row in rows} == {"CANCELLED"}


def test_triggered_jobs_are_written_or_run(instance: Instance, tree: Path) -> None:
    """As job files that run by themselves, with references in place of values; or at once, with their conditions."""
    file, next_dir = str(tree / "build.yaml"), tree / "next"
    instance.ok("run-local", "-f", file, "--triggers-dir", str(next_dir))
    deploy = (next_dir / "deploy.yaml").read_text()

    assert sorted(path.name for path in next_dir.iterdir()) == ["deploy.yaml", "tell.yaml"]
    assert "TOKEN: ${secret:local:TOKEN}" in deploy
    assert SECRET not in deploy
    alone = instance.run("run-local", "-q", "-f", str(next_dir / "deploy.yaml"))
    assert (alone.returncode, alone.stdout) == (3, b"deploy x ***\n")

    done = instance.run("run-local", "-f", file, "--auto-continue")
    assert (done.returncode, done.stdout) == (3, b"deploy | deploy x ***\ntell   | told\n")

    instance.start("--secret", "TOKEN")
    job = json.loads(instance.ok("jobs", "submit", "--file", file, "--wait", "--json"))
    shown = json.loads(instance.ok("jobs", "show", job["id"], "--json"))
    children = [instance.wait(child) for child in shown["children"]]
    assert ends(children) == {
        "deploy": ("FAILED", "EXITED", 3),
        "tell": ("SUCCEEDED", "EXITED", 0),
    }
    assert instance.log(children[0]["id"]) == b"deploy x ***\n"


def test_a_broken_file_of_triggers_fails_its_job_everywhere(instance: Instance) -> None:
    """One clear line in the log and in the record; links are not followed."""
    path = instance.job_file("name: j\njob_command: ln -s /etc/passwd /job/triggers.json\n")
    done = instance.run("run-local", "-f", path)

    line = "triggers.json: 'triggers.json' cannot be read: is a link"
    assert (done.returncode, done.stdout.decode()) == (1, f"runner: {line}\n")
    assert f"workflow failed: {line}" in done.stderr.decode()


def test_a_watched_folder_runs_each_file_once(instance: Instance) -> None:
    """However many watch it; what ended is moved with its result."""
    folder = instance.root / "inbox"
    folder.mkdir()
    marks = instance.root / "marks"
    for number in range(6):
        (folder / f"j{number}.yaml").write_text(
            f"job_command: echo ran {number}; exit {number % 2}\n"
        )
    (folder / "wrong.json").write_text("{}")
    (folder / ".hidden.yaml").write_text("job_command: echo hidden\n")
    with marks.open("wb") as out:
        watchers = [
            instance.popen("watch", str(folder), "--once", "-q", stdout=out) for _ in range(2)
        ]
        assert [watcher.wait(120) for watcher in watchers] == [0, 0]

    assert sorted(marks.read_text().split("\n")[:-1]) == [f"j{n} | ran {n}" for n in range(6)]
    result = json.loads((folder / "failed" / "j1.yaml.result.json").read_text())
    assert (result["state"], result["exit_code"]) == ("FAILED", 1)
    assert sorted(path.name for path in (folder / "done").glob("*.yaml")) == [
        "j0.yaml",
        "j2.yaml",
        "j4.yaml",
    ]
    assert "job_command: is missing" in (folder / "failed" / "wrong.json.result.json").read_text()
    assert (folder / ".hidden.yaml").exists()


def test_a_killed_watcher_leaves_no_file_to_run_again(instance: Instance) -> None:
    """The next one says that it was lost."""
    folder = instance.root / "inbox"
    folder.mkdir()
    (folder / "long.yaml").write_text("job_command: echo up; sleep 60\n")
    watcher = instance.popen("watch", str(folder), stdout=subprocess.PIPE)
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == b"long | up\n"
    watcher.kill()
    watcher.wait(60)
    watcher.stdout.close()

    instance.ok("watch", str(folder), "--once")

    assert "LOST" in (folder / "failed" / "long.yaml.result.json").read_text()


@pytest.mark.parametrize("trusted", ["", "    ci_source: {type: copy, path: scripts}\n"])
def test_jobs_speak_to_the_runner_behind_rules_of_the_kernel_too(
    instance: Instance, trusted: str
) -> None:
    """In the Landlock tier, with trusted files that nobody can change, and without."""
    instance.extra_env["RUNNER_SANDBOX_TIER"] = "landlock"
    (instance.root / "scripts").mkdir()
    (instance.root / "scripts" / "f").write_text("trusted\n")
    path = instance.job_file(
        "jobs:\n  a:\n" + trusted + "    command: echo x > $RUNNER_CI_SOURCE_DIR/f; "
        "runnerlib set-var A 1; runnerlib trigger b --job-command 'cat $RUNNER_CI_SOURCE_DIR/f; runnerlib vars A'\n"
    )
    done = instance.run("pipeline", "run", path, "-q")

    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "b | 1", done.stderr.decode()
    assert ("b | trusted" in lines) == bool(trusted)
