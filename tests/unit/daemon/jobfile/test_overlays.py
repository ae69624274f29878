"""Files laid over a job file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_runner.job_spec import JobSpec
from daemon.errors import InvalidJobFileError
from daemon.jobfile.loader import load_job_file
from daemon.jobfile.overlay import MAX_OVERLAYS, Overlay
from tests.unit.daemon.jobfile.loading import BASE

JOB = """\
job_command: make
timeout: 5
env: {A: "1", TOKEN: "${secret:npm:TOKEN}"}
sandbox: {memory: 1GiB, network: off}
source: {type: git, url: https://h/r, ref: main, credentials: "${secret:git:T}"}
"""


def laid(*overlays: str, allow: bool = False, job: str = JOB) -> JobSpec:
    return load_job_file(
        job.encode(),
        "job.yaml",
        BASE,
        overlays=[
            Overlay(f"over{number}.yaml", text.encode(), Path("/over"))
            for number, text in enumerate(overlays)
        ],
        allow_secret_overrides=allow,
    )


def problems(*overlays: str, allow: bool = False, job: str = JOB) -> list[str]:
    with pytest.raises(InvalidJobFileError) as caught:
        laid(*overlays, allow=allow, job=job)
    return str(caught.value).splitlines()


def test_values_replace_and_mappings_merge():
    """In order, whatever the spelling of either file; the rest stays."""
    spec = laid(
        "timeout_seconds: 9\nenv: {A: '2', B: '3'}\n",
        "environment: {B: '4'}\nsandbox: {memory: 2GiB}\nsource_ref: v1\n",
    )
    assert spec.timeout_s == 9
    assert spec.env == {"A": "2", "B": "4", "TOKEN": "${secret:npm:TOKEN}"}
    assert (spec.sandbox.memory_bytes, spec.sandbox.network) == (2 << 30, "off")
    assert (spec.source.url, spec.source.ref) == ("https://h/r", "v1")
    assert spec.name == "job"


def test_a_list_replaces_a_list():
    """Lists are not merged."""
    job = "job_command: x\ndepends_on: [a, b]\n"
    assert laid("depends_on: [c]", job=job).depends_on == ("c",)


def test_steps_replace_a_command_and_the_other_way():
    """A file that says what to run says all of it."""
    assert "==> s" in laid("steps: [{name: s, command: y}]").argv[2]
    assert laid("job_command: [y]", job="steps: [x]").argv == ("y",)


def test_a_relative_path_starts_at_its_own_file():
    """Not at the job file."""
    job = "job_command: x\nsource: {type: copy, path: here}\n"
    assert laid(job=job).source.path == "/base/dir/here"
    assert laid("source_path: there", job=job).source.path == "/over/there"


def test_a_reference_gives_way_to_a_reference_only():
    """Plain text in its place is refused with the place, unless it is allowed."""
    text = "env: {A: x,\n  TOKEN: plain}\nsource_credentials: plain\n"
    assert problems(text) == [
        f"over0.yaml:{place}: replaces a secret reference by plain text; "
        "--allow-secret-overrides allows it"
        for place in ("2:10: env.TOKEN", "3:21: source_credentials")
    ]
    assert laid("env: {TOKEN: plain}", allow=True).env["TOKEN"] == "plain"
    assert laid("env: {TOKEN: '${secret:other:T}'}").env["TOKEN"] == "${secret:other:T}"
    assert problems("env: {TOKEN: '$${secret:npm:TOKEN}'}")
    assert problems("env: {TOKEN: }")


def test_a_chain_of_overlays_does_not_launder_a_reference():
    """Each file is measured against what is there before it."""
    assert problems("env: {TOKEN: '${secret:a:B}'}", "env: {TOKEN: plain}")[0].startswith(
        "over1.yaml:1:14: env.TOKEN"
    )


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("", "over0.yaml:1:1: the file is empty; a job needs at least job_command"),
        ("[]", "over0.yaml:1:1: a job must be a mapping of fields, such as job_command"),
        ("a: [", "over0.yaml:1:5: is not valid YAML: "),
        ("\n\nx: 1", "over0.yaml:3:1: x: unknown field"),
        ("timeout: no", "over0.yaml:1:10: timeout: must be a number"),
        ("env: {A: [1]}", "over0.yaml:1:10: env.A: must be text"),
        ("env: no", "over0.yaml:1:6: env: must be a mapping of names to values"),
        ("\nsandbox: {memory: no}", "over0.yaml:2:19: sandbox.memory: must be"),
        ("job_dir: /etc", "over0.yaml:1:10: job_dir: must be /job or a path below it"),
        ("env: {RUNNER_X: '1'}", "over0.yaml:1:17: env.RUNNER_X: is reserved"),
        ("source_type: none", "job.yaml:5:26: source.url: needs source_type: git"),
        ("timeout: 1\ntimeout_seconds: 2", "over0.yaml:2:1: timeout_seconds: means the same as timeout (line 1)"),
    ],
)  # fmt: skip
def test_places_in_the_right_file(overlay: str, expected: str):
    """A problem is told of the file in which it stands."""
    assert problems(overlay)[0].startswith(expected)


def test_too_many():
    """They are bounded."""
    assert "at most 20" in problems(*["timeout: 1"] * (MAX_OVERLAYS + 1))[0]
