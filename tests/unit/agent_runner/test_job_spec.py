"""The rules that every job obeys, however it was submitted."""

from __future__ import annotations

from typing import Any

import pytest

from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy, SourceSpec, shell_command
from agent_runner.outcome import EndReason
from agent_runner.sandbox_spec import BOUNDS, WALLS, SandboxSpec
from sandbox.base import Wall
from sandbox.limits import Limit


def test_a_plain_job_is_valid() -> None:
    """Defaults obey the rules."""
    JobSpec(argv=("true",)).validate()
    JobSpec(argv=shell_command("echo hi")).validate()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("job_command", {"argv": ()}),
        ("job_command", {"argv": ("",)}),
        ("job_command", {"argv": shell_command("  ")}),
        ("job_command", {"argv": ("a\0b",)}),
        ("name", {"name": ""}),
        ("name", {"name": "x" * 201}),
        ("name", {"name": "\udc80"}),
        ("env", {"env": {"1A": "x"}}),
        ("env", {"env": {"A=B": "x"}}),
        ("env.A", {"env": {"A": "\0"}}),
        ("env.A", {"env": {"A": "x" * 131_001}}),
        ("env", {"env": {f"V{i}": "" for i in range(2001)}}),
        ("env.RUNNER_JOB_ID", {"env": {"RUNNER_JOB_ID": "x"}}),
        ("source_type", {"source": SourceSpec(kind="ftp")}),
        ("source_path", {"source": SourceSpec(kind="none", path="/x")}),
        ("source_path", {"source": SourceSpec(kind="copy", path="relative")}),
        ("code_dir", {"code_dir": "/etc"}),
        ("code_dir", {"code_dir": "/job/../etc"}),
        ("code_dir", {"code_dir": "/jobs"}),
        ("job_dir", {"job_dir": "src"}),
        ("timeout_seconds", {"timeout_s": 0.0}),
        ("timeout_seconds", {"timeout_s": float("nan")}),
        ("timeout_seconds", {"timeout_s": float("inf")}),
        ("idle_timeout_seconds", {"idle_timeout_s": -1.0}),
        ("sandbox.kind", {"sandbox": SandboxSpec(kind="vm")}),
        ("sandbox.min", {"sandbox": SandboxSpec(min="none")}),
        ("sandbox.network", {"sandbox": SandboxSpec(network="maybe")}),
        ("sandbox.network", {"sandbox": SandboxSpec(network="hosts")}),
        ("sandbox.network", {"sandbox": SandboxSpec(network="on", hosts=("a.b",))}),
        ("sandbox.network", {"sandbox": SandboxSpec(network="hosts", hosts=("a.b",) * 201)}),
        ("sandbox.network.1", {"sandbox": SandboxSpec(network="hosts", hosts=("a.b", "0x1"))}),
        ("sandbox.memory", {"sandbox": SandboxSpec(memory_bytes=-1)}),
        ("sandbox.disk", {"sandbox": SandboxSpec(disk_bytes=-1)}),
        ("sandbox.open_files", {"sandbox": SandboxSpec(open_files=1 << 21)}),
        ("sandbox.cpus", {"sandbox": SandboxSpec(cpus=float("nan"))}),
        ("sandbox.require", {"sandbox": SandboxSpec(require=("luck",))}),
        ("sandbox.require", {"sandbox": SandboxSpec(require=("pids",))}),
        ("labels", {"labels": {"a b": "c"}}),
        ("priority", {"priority": 1001}),
        ("retries.max", {"retries": RetryPolicy(max=-1)}),
        ("retries.max", {"retries": RetryPolicy(max=101)}),
        ("retries.backoff_seconds", {"retries": RetryPolicy(max=1, backoff_s=3601)}),
        ("retries.backoff_seconds", {"retries": RetryPolicy(max=1, backoff_s=float("nan"))}),
        ("retries.on", {"retries": RetryPolicy(max=1, exit_codes=(0,))}),
        ("retries.on", {"retries": RetryPolicy(max=1, exit_codes=(256,))}),
        ("retries.on", {"retries": RetryPolicy(max=1, exit_codes=(1,) * 256)}),
        ("retries.on", {"retries": RetryPolicy(max=1, end_reasons=(EndReason.LOST,))}),
        ("concurrency.group", {"concurrency": ConcurrencySpec(group=" ")}),
        ("concurrency.group", {"concurrency": ConcurrencySpec(group="x" * 201)}),
        ("concurrency.limit", {"concurrency": ConcurrencySpec(group="x", limit=0)}),
        ("concurrency.limit", {"concurrency": ConcurrencySpec(group="x", limit=1001)}),
        ("depends_on.1", {"depends_on": ("a", "A")}),
        ("depends_on.2", {"depends_on": ("a", "b", "a")}),
        ("depends_on", {"depends_on": tuple(f"j{i}" for i in range(101))}),
        ("not_before", {"not_before_us": -1}),
        ("max_attempts", {"max_attempts": -1}),
    ],
)
def test_a_broken_rule_names_the_field(field: str, values: dict[str, Any]) -> None:
    """Each rule is refused with the field of the job file."""
    with pytest.raises(InvalidJobSpecError) as caught:
        JobSpec(**{"argv": ("true",), **values}).validate()
    assert caught.value.field == field


def test_what_can_be_required_is_what_a_sandbox_knows() -> None:
    """The names are written out, because every command line that submits a job imports them."""
    assert set(WALLS) == {wall.value for wall in Wall}
    assert set(BOUNDS) == {limit.value for limit in Limit}
