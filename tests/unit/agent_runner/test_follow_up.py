"""What an attempt leaves for others, from the executor's end: what is taken, what is refused, and what is said in the log."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from agent_runner.attempt_control import AttemptControl
from agent_runner.executor import AttemptRequest, AttemptRun
from agent_runner.job_spec import JobSpec, SourceSpec
from agent_runner.outcome import EndReason, LogSummary, Outcome
from agent_runner.secret_refs import SecretRef
from agent_runner.secret_source import GivenSecrets
from agent_runner.workflow_spec import WorkflowSpec
from sandbox.scripted import ScriptedProvider

TOKEN = "tok-" + "9" * 16


class Log:
    """A LogWriter that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drained(self) -> None:
        pass

    def summary(self) -> LogSummary:
        return LogSummary(length=len(self.data), sha256=hashlib.sha256(self.data).hexdigest())


async def run(
    written: object, folder: Path, *, name: str = "triggers.json", **fields: Any
) -> tuple[Outcome, str]:
    """Run a job that writes a file and return its end and its log."""
    text = written if isinstance(written, str) else json.dumps(written)
    env = {
        "SCRIPT_WRITE": f"{name}={text}",
        "TOKEN": "${secret:npm/x:TOKEN}",
        "PLAIN_TOKEN": "plain-text-1",
    }
    spec = JobSpec(argv=("x",), name="build", env=env | fields.pop("env", {}), **fields)
    log = Log()
    attempt = AttemptRun(
        ScriptedProvider(),
        AttemptRequest(job_id="j", attempt=1, spec=spec, source_dir=folder),
        GivenSecrets({SecretRef("npm/x", "TOKEN"): TOKEN}),
        log,
        AttemptControl(),
    )
    outcome = await attempt.run()
    await attempt.clean_up()
    return outcome, log.data.decode()


def asked(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the jobs of an outcome."""
    assert outcome.triggers is not None, outcome
    (workflow,) = json.loads(outcome.triggers.document)["workflows"]
    jobs: list[dict[str, Any]] = workflow["jobs"]
    return jobs


async def test_a_value_becomes_its_reference_again(tmp_path: Path):
    """A job that passes on what it was given passes on the name of it; other text stays."""
    env = {"T": f"Bearer {TOKEN}", "P": "plain-text-1", "R": "${secret:npm/x:TOKEN}"}
    outcome, log = await run(
        {"jobs": [{"job_name": "a", "job_command": "true", "env": env}]}, tmp_path
    )

    assert asked(outcome)[0]["env"] == {
        "T": "Bearer ${secret:npm/x:TOKEN}",
        "P": "plain-text-1",
        "R": "${secret:npm/x:TOKEN}",
    }
    assert outcome.succeeded
    assert log == ""


@pytest.mark.parametrize(
    "jobs",
    [
        [{"job_name": "a", "job_command": f"echo {TOKEN}"}],
        [{"job_name": TOKEN, "job_command": "true"}],
        [{"job_name": "a", "job_command": "true", "for_each": [TOKEN]}],
        [{"job_name": "a", "job_command": "true", "source_url": f"https://x:{TOKEN}@h/"}],
    ],
    ids=["command", "name", "for_each", "url"],
)
async def test_a_secret_elsewhere_is_refused(tmp_path: Path, jobs: list[dict[str, Any]]):
    """The job has failed, and neither its log nor its record shows the value."""
    outcome, log = await run({"jobs": jobs}, tmp_path)

    assert outcome.end_reason is EndReason.WORKFLOW_FAILED
    assert outcome.exit_code == 0
    assert "holds the value of a secret" in outcome.message
    assert "holds the value of a secret" in log
    assert TOKEN not in log + outcome.message
    assert outcome.triggers is None


async def test_a_broken_file_fails_a_job_that_had_succeeded(tmp_path: Path):
    """The same line is in the log and in the record."""
    outcome, log = await run("{", tmp_path)

    assert outcome.end_reason is EndReason.WORKFLOW_FAILED
    assert outcome.message.startswith("triggers.json: is not valid JSON")
    assert log == f"runner: {outcome.message}\n"


async def test_a_failure_of_the_command_stays_what_it_was(tmp_path: Path):
    """A broken file is said beside it."""
    outcome, _ = await run("{", tmp_path, env={"SCRIPT_EXIT_CODE": "3"})

    assert (outcome.end_reason, outcome.exit_code) == (EndReason.EXITED, 3)
    assert outcome.message.startswith("triggers.json: is not valid JSON")


async def test_a_failed_job_may_trigger(tmp_path: Path):
    """Somebody has to be told of a failure."""
    outcome, _ = await run(
        {"jobs": [{"job_name": "tell", "job_command": "true", "condition": "failure"}]},
        tmp_path,
        env={"SCRIPT_EXIT_CODE": "3"},
    )

    assert asked(outcome)[0]["condition"] == "any_failed"


async def test_a_job_file_comes_from_the_source(tmp_path: Path):
    """A job without a command has a file of its name; without one it is refused."""
    (tmp_path / "tree" / "jobs").mkdir(parents=True)
    (tmp_path / "tree" / "jobs" / "deploy.yaml").write_text("job_command: true\n")
    source = SourceSpec(kind="copy", path=str(tmp_path / "tree"))

    outcome, _ = await run({"jobs": [{"job_name": "deploy"}]}, tmp_path, source=source)
    missing, _ = await run({"jobs": [{"job_name": "other"}]}, tmp_path, source=source)

    assert outcome.triggers is not None
    assert [tuple(file) for file in outcome.triggers.files] == [
        ("jobs/deploy.yaml", "job_command: true\n")
    ]
    assert asked(outcome)[0]["job_file"] == "jobs/deploy.yaml"
    assert "there is no file jobs/other.yaml" in missing.message


async def test_unknown_fields_are_said_in_the_log(tmp_path: Path):
    """They do not fail the job."""
    outcome, log = await run(
        {"jobs": [{"job_name": "a", "job_command": "true", "colour": 1}]}, tmp_path
    )

    assert outcome.succeeded
    assert log == "runner: triggers.json: jobs.0 (a).colour: unknown field, not read\n"


async def test_what_is_said_in_the_log_is_masked_and_one_line(tmp_path: Path):
    """Names of fields are the job's own text."""
    job = {"job_name": "a", "job_command": "true", f"{TOKEN}": 1, "x\ny\x1b[2J": 1}
    outcome, log = await run({"jobs": [job]}, tmp_path)
    named, _ = await run({"jobs": [{**job, "env": {TOKEN.replace("-", "_"): "1"}}]}, tmp_path)

    assert outcome.succeeded
    assert log.splitlines() == [
        "runner: triggers.json: jobs.0 (a).***: unknown field, not read",
        "runner: triggers.json: jobs.0 (a).x?y?[2J: unknown field, not read",
    ]
    assert named.succeeded  # a name that only resembles it is none


async def test_variables_of_a_workflow(tmp_path: Path):
    """What a job gives is taken if it is part of a workflow; a secret in it is refused."""
    flow = WorkflowSpec(id="w")
    name = "workflow-output.json"
    given, _ = await run({"vars": {"A": 1}}, tmp_path, name=name, workflow=flow)
    secret, _ = await run({"vars": {"A": TOKEN}}, tmp_path, name=name, workflow=flow)
    alone, _ = await run({"vars": {"A": 1}}, tmp_path, name=name)

    assert json.loads(given.workflow_output) == {"vars": {"A": 1}, "outputs": {}}
    assert "workflow-output.json: vars.A: holds the value of a secret" in secret.message
    assert (alone.workflow_output, alone.succeeded) == ("", True)
