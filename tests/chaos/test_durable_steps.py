"""kill -9 exactly at each durable step, of the process whose step it is, of the daemon, and of two at once."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from tests.chaos.installation import Installation
from tests.chaos.job_mix import planned
from tests.chaos.oracle import judge
from tests.chaos.side_by_side import side_by_side
from tests.chaos.steps import SHORT, die_at

AT_ONCE = 3


@pytest.fixture(scope="module")
def raised() -> dict[str, str]:
    """Every step has an installation of its own, and starting and stopping it is mostly waiting."""
    return side_by_side({str(step): partial(die_at, step) for step in SHORT}, AT_ONCE)


@pytest.mark.parametrize("step", [str(step) for step in SHORT])
def test_a_death_at_a_durable_step(step: str, raised: dict[str, str]) -> None:
    assert not raised[step], raised[step]


def test_the_oracle_objects() -> None:
    """It is not blind: a log, a side effect and an end that are not the planned ones are objections."""
    job = planned(1, "short", Random(1))
    with Installation() as installation:
        installation.submit(job)
        installation.client.wait(job.job_id)
        witness, watcher = installation.witness, installation.watcher
        assert not judge(installation.client, [job], witness, watcher).objections
        job.expected += b"one line more\n"
        job.exit_code = 3
        witness.runs.append(witness.runs[0])
        said = "\n".join(installation.judge([job]).objections)
    for part in ("is not what was printed", "ran 2 times", "not FAILED/EXITED with 3"):
        assert part in said
