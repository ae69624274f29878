"""kill -9 exactly at each durable step, of the process whose step it is, of the daemon, and of two at once."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos.installation import Installation
from tests.chaos.job_mix import planned
from tests.chaos.oracle import judge
from tests.chaos.steps import SHORT, Step, die_at


@pytest.mark.parametrize("step", SHORT, ids=str)
def test_a_death_at_a_durable_step(step: Step) -> None:
    objections = die_at(step)
    assert not objections, "\n".join(objections)


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
