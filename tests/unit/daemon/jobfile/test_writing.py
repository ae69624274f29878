"""A job that is written as a file reads as the same job."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy, SourceSpec
from agent_runner.outcome import EndReason
from agent_runner.outputs_spec import CacheSpec, OutputsSpec
from agent_runner.sandbox_spec import SandboxSpec
from daemon.jobfile.loader import load_job_file
from daemon.jobfile.writing import job_file_text

FULL = JobSpec(
    argv=("/bin/sh", "-c", "echo 'a: b' #\n\tmake\n"),
    name="[x]: *y",
    env={"A": "1.10", "T": "${secret:npm/x:TOKEN}", "N": "null", "Y": "yes", "E": ""},
    source=SourceSpec(kind="git", url="https://h/x", ref="v1", depth=3, submodules=True, lfs="off"),
    ci_source=SourceSpec(kind="copy", path="/ci"),
    container_image="img:1",
    code_dir="/job/x",
    job_dir="/job/x/y",
    timeout_s=1.5,
    idle_timeout_s=0.25,
    sandbox=SandboxSpec(
        min="bwrap",
        network="hosts",
        hosts=("a.example", "b.example:81"),
        memory_bytes=1 << 30,
        pids=7,
        output_bytes=9,
        cpus=1.5,
        disk_bytes=1 << 40,
        open_files=99,
        require=("network",),
        unprotected=True,
    ),
    labels={"os": "linux"},
    project="p",
    priority=-3,
    retries=RetryPolicy(max=2, backoff_s=1.5, exit_codes=(75,), end_reasons=(EndReason.TIMED_OUT,)),
    concurrency=ConcurrencySpec(group="g", limit=3),
    not_before_us=1_800_000_000_250_000,
    max_attempts=4,
    masking="values",
    outputs=OutputsSpec(paths=("dist/*", "!dist/x"), max_bytes=10, max_files=3),
    trigger_secrets=("prod/*:*",),
    cache=CacheSpec(inputs=("src/**",), key="k"),
)
LEFT_OUT = {"depends_on", "condition", "inputs", "workflow"}


@pytest.mark.parametrize(
    "spec",
    [FULL, JobSpec(argv=("make", "a b"), name="plain"), replace(FULL, masking="off", retries=None)],
    ids=["full", "plain", "off"],
)
def test_reads_as_it_was_written(spec: JobSpec) -> None:
    """Whatever a text looks like in YAML; references stay references."""
    text = job_file_text(spec, "Triggered by x.\nand more")

    assert text.startswith("# Triggered by x.\n# and more\n")
    assert load_job_file(text.encode(), "x.yaml", Path("/")) == spec


def test_every_field_is_written_or_left_out_on_purpose() -> None:
    """A new field of a job must get its place here."""
    plain = JobSpec(argv=("x",), name="")
    same = {
        each.name
        for each in fields(JobSpec)
        if getattr(FULL, each.name) == getattr(plain, each.name)
    }
    assert same == LEFT_OUT
