"""Who may write for an attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, LogSummary, Outcome
from daemon.clock import FixedClock
from daemon.jobs.leases import ended_by, expiry_us, grant, is_held
from daemon.jobs.models import AgentIdentity, Job
from daemon.jobs.states import JobState

JOB = Job(id="job", spec=JobSpec(argv=("x",)), state=JobState.RUNNING, create_us=0, attempt=2)
ATTEMPT = grant(JOB, AgentIdentity(name="a", incarnation="1"), 5, 9)
ENDED = ATTEMPT._replace(
    state=JobState.FAILED,
    end_reason=EndReason.EXITED,
    exit_code=1,
    log=LogSummary(sha256="s"),
)
OUTCOME = Outcome(end_reason=EndReason.EXITED, exit_code=1, log=LogSummary(sha256="s"))


def test_grant():
    """An attempt begins as its job's newest, with a token that nobody can guess."""
    again = grant(JOB, ATTEMPT.agent, 5, 9)

    assert (ATTEMPT.job_id, ATTEMPT.number, ATTEMPT.start_us, ATTEMPT.expire_us) == ("job", 2, 5, 9)
    assert len(ATTEMPT.lease_token) >= 20
    assert again.lease_token != ATTEMPT.lease_token


def test_held():
    """Only the exact lease of a living attempt is held."""
    assert is_held(ATTEMPT.lease, ATTEMPT)
    assert not is_held(ATTEMPT.lease._replace(lease_token=""), ATTEMPT)
    assert not is_held(ATTEMPT.lease, ENDED)
    assert not is_held(ATTEMPT.lease, None)


def test_same_report():
    """A report is repeated if reason, code and log are those that are stored."""
    assert ended_by(ENDED.lease, ENDED, OUTCOME)
    assert not ended_by(ATTEMPT.lease, ATTEMPT, OUTCOME)
    assert not ended_by(ENDED.lease, None, OUTCOME)
    assert not ended_by(ENDED.lease._replace(lease_token=""), ENDED, OUTCOME)


@pytest.mark.parametrize(
    "other",
    [
        replace(OUTCOME, exit_code=2),
        replace(OUTCOME, end_reason=EndReason.TIMED_OUT),
        replace(OUTCOME, log=LogSummary(sha256="other")),
    ],
)
def test_another_report(other: Outcome):
    """Any difference makes it another report."""
    assert not ended_by(ENDED.lease, ENDED, other)


def test_nobody_reports_a_loss():
    """The store's own verdict is never somebody's report."""
    lost = ENDED._replace(end_reason=EndReason.LOST)

    assert not ended_by(lost.lease, lost, replace(OUTCOME, end_reason=EndReason.LOST))


def test_expiry():
    """A lease ends its length from here, on the steady clock."""
    assert expiry_us(FixedClock(1000), 1.5) == 1_501_000
