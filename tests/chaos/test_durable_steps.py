"""kill -9 exactly at each durable step, of the process whose step it is, of the daemon, and of two at once."""

from __future__ import annotations

from random import Random

import pytest

from tests.chaos.installation import AGENT, DAEMON, SERVER, Installation
from tests.chaos.job_mix import PlannedJob, lines, planned
from tests.chaos.oracle import judge

BODY = 'echo "1 line 1"; sleep 0.15; echo "1 line 2"'
"""Prints before its end, so that its log is streamed, and something is left for the report."""

STEPS = [
    # point, moment, victims, attempts that the job may need
    ("submit", "before", (SERVER,), 1),  # nothing is stored
    ("submit", "after", (SERVER,), 1),  # stored, not answered
    ("claim", "after", (SERVER,), 2),  # assigned, not sent
    ("attempt", "before", (AGENT,), 2),  # received, not started
    ("exec", "after", (AGENT,), 2),  # the command runs
    ("exec", "after", (SERVER,), 1),
    ("exec", "after", (DAEMON,), 2),
    ("log-append", "after", (SERVER,), 1),  # stored, not acknowledged
    ("log-append", "after", (AGENT,), 2),
    ("seal", "after", (AGENT,), 1),  # the end is in the spool, not reported
    ("seal", "after", (SERVER,), 1),
    ("seal", "after", (DAEMON, AGENT), 1),
    ("finish", "before", (SERVER,), 1),  # reported, not stored
    ("finish", "before", (AGENT,), 1),
    ("finish", "after", (SERVER,), 1),  # stored, not acknowledged
    ("finish", "after", (AGENT, SERVER), 1),
    ("spool-remove", "before", (AGENT,), 1),  # acknowledged, still in the spool
]


@pytest.mark.parametrize(("point", "moment", "victims", "attempts"), STEPS)
def test_a_death_at_a_durable_step(
    point: str, moment: str, victims: tuple[str, ...], attempts: int
) -> None:
    job = PlannedJob(1, "steps", BODY, lines(1, 2))
    with Installation(faults=True) as installation:
        with installation.armed(point, moment, *victims):
            installation.submit(job)
        ended = installation.client.wait(job.job_id)
        verdict = installation.judge([job])
        assert not verdict.objections, (verdict.objections, installation.instance.tails())
        assert ended.attempt <= attempts, ended


def test_the_oracle_objects() -> None:
    """It is not blind: a log, a side effect and an end that are not the planned ones are objections."""
    job = planned(1, "short", Random(1))
    with Installation() as installation:
        installation.submit(job)
        installation.client.wait(job.job_id)
        assert not judge(
            installation.client, [job], installation.witness, installation.watcher
        ).objections
        job.expected += b"one line more\n"
        job.exit_code = 3
        installation.witness.runs.append(installation.witness.runs[0])
        said = "\n".join(installation.judge([job]).objections)
    for part in ("is not what was printed", "ran 2 times", "not FAILED/EXITED with 3"):
        assert part in said
