"""The field of a job file that says what its log hides."""

from __future__ import annotations

import pytest

from tests.unit.daemon.jobfile.loading import error, load


@pytest.mark.parametrize(
    ("text", "masking"),
    [
        ("", ""),
        ("masking: on", ""),
        ("masking: off", "off"),
        ("masking: {formats: off}", "values"),
        ("masking: {formats: on}", ""),
        ("masking: {}", ""),
    ],
)
def test_what_is_hidden(text: str, masking: str):
    """Everything by default; the secrets of the job only; or nothing."""
    assert load(f"job_command: x\n{text}").masking == masking


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("masking: maybe", "2:10: masking: must be one of on, off"),
        ("masking: {formats: maybe}", "2:20: masking.formats: must be one of on, off"),
        (
            "masking: {format: off}",
            "2:11: masking.format: unknown field; did you mean 'formats'?",
        ),
    ],
)
def test_place_of_a_problem(text: str, expected: str):
    """A field that decides about secrets is never guessed."""
    assert error(f"job_command: x\n{text}") == f"job.yaml:{expected}"
