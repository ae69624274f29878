"""The fields of a job file that the queue obeys: retries, concurrency, depends_on, not_before, max_attempts."""

from __future__ import annotations

import pytest

from agent_runner.job_spec import ConcurrencySpec
from daemon.jobfile.loader import load_job_file
from tests.unit.daemon.jobfile.loading import BASE, error, load


def test_group_by_its_name():
    """A plain text is a group of which one job runs at once."""
    assert load("job_command: x\nconcurrency: deploy").concurrency == ConcurrencySpec(
        group="deploy"
    )


@pytest.mark.parametrize(
    ("delay", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("0s", 0)]
)
def test_delay_counts_from_now(delay: str, seconds: int):
    """A delay becomes a moment when the file is read."""
    spec = load_job_file(f"job_command: x\nnot_before: {delay}".encode(), "a.yaml", BASE, 7)

    assert spec.not_before_us == seconds * 1_000_000 + 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retries: {}", "2:10: retries.max: is missing"),
        (
            "retries: {max: 1, backof_seconds: 2}",
            "2:19: retries.backof_seconds: unknown field; did you mean 'backoff_seconds'?",
        ),
        ("retries: {max: 101}", "2:16: retries.max: must lie between 0 and 100"),
        ("retries: {max: 1, on: [0]}", "2:23: retries.on: 0 is not an exit code from 1 to 255"),
        ("concurrency: 4", "2:14: concurrency: must be a mapping of fields"),
        (
            "concurrency: {grup: a, group: b}",
            "2:15: concurrency.grup: unknown field; did you mean 'group'?",
        ),
        (
            "concurrency: {group: a, limit: 0}",
            "2:32: concurrency.limit: must lie between 1 and 1000",
        ),
        ("concurrency: ''", "2:14: concurrency.group: must not be empty"),
        ("depends_on: [a, B]", "2:17: depends_on.1: is not the id of a job"),
        ("depends_on: a", "2:13: depends_on: must be a list"),
        ("not_before: 2027-02-30T00:00:00Z", "2:13: not_before: is no date and time that exists"),
        ("max_atempts: 1", "2:1: max_atempts: unknown field; did you mean 'max_attempts'?"),
        ("max_attempts: 1001", "2:15: max_attempts: must lie between 0 and 1000"),
    ],
)
def test_place_of_a_problem_with_the_queue(text: str, expected: str):
    """The fields of the queue are refused like all others."""
    assert error(f"job_command: x\n{text}") == f"job.yaml:{expected}"


@pytest.mark.parametrize("moment", ["10", "soon", "2027-01-31", "2027-01-31T18:00:00", "''", "10x"])
def test_no_moment(moment: str):
    """The error shows what a moment looks like."""
    assert "such as 2027-01-31T18:00:00Z, or a delay" in error(
        f"job_command: x\nnot_before: {moment}"
    )


def test_no_end_to_retry():
    """A reason that does not exist is refused with the nearest one."""
    line = error("job_command: x\nretries: {max: 1, on: [TIMEDOUT]}")

    assert line.startswith("job.yaml:2:24: retries.on.0: must be an exit code or one of ")
    assert line.endswith("did you mean 'TIMED_OUT'?")
