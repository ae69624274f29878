"""What is said of the next automatic step, and of the end of a job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_runner.job_spec import JobSpec, RetryPolicy
from agent_runner.outcome import EndReason
from daemon.jobs.models import AgentIdentity, Attempt, Job
from daemon.jobs.states import JobState
from daemon.server.next_steps import Running, end_sentence, next_of_running

S = 1_000_000
JOB = Job(id="j", spec=JobSpec(argv=("x",), timeout_s=60), state=JobState.RUNNING, create_us=0)
ATTEMPT = Attempt(
    job_id="j",
    number=1,
    state=JobState.RUNNING,
    agent=AgentIdentity(name="a", incarnation="1"),
    lease_token="t",
    start_us=100 * S,
    expire_us=130 * S,
)
RUNNING = Running(connected=True, expire_us=130 * S, output_us=None, cancel_us=None)


def of_spec(**fields: object) -> Job:
    return JOB._replace(spec=replace(JOB.spec, **fields))  # type: ignore[arg-type]


def test_the_time_out_comes_unless_silence_comes_before():
    assert next_of_running(JOB, ATTEMPT, RUNNING).time_us == 160 * S
    quiet = of_spec(idle_timeout_s=10)
    assert next_of_running(quiet, ATTEMPT, RUNNING).time_us == 110 * S
    printed = replace(RUNNING, output_us=155 * S)
    step = next_of_running(quiet, ATTEMPT, printed)
    assert (step.text, step.time_us) == ("it is stopped for running longer than 1 min 0 s", 160 * S)


def test_a_time_out_that_is_tried_again_says_so():
    again = of_spec(retries=RetryPolicy(max=2, backoff_s=5))
    assert next_of_running(again, ATTEMPT, RUNNING).text.endswith(", and tried again after 5.0 s")
    used_up = again._replace(failures=2)
    assert "tried again" not in next_of_running(used_up, ATTEMPT, RUNNING).text


@pytest.mark.parametrize(
    ("job", "end"),
    [
        (JOB, "queued again (loss 1 of 3)"),
        (JOB._replace(losses=3), "fails as LOST"),
        (of_spec(max_attempts=1), "fails as LOST"),
        (of_spec(max_attempts=9), "queued again"),
        (JOB._replace(state=JobState.CANCELLING), "the job is cancelled"),
    ],
)
def test_without_its_agent_runner_the_lease_decides(job, end):
    step = next_of_running(job, ATTEMPT, replace(RUNNING, connected=False))
    assert step.text.endswith(end)
    assert step.time_us == 130 * S


def test_a_cancelled_job_is_killed_after_its_grace():
    job = JOB._replace(state=JobState.CANCELLING)
    assert next_of_running(job, ATTEMPT, replace(RUNNING, cancel_us=120 * S)).time_us == 130 * S
    assert next_of_running(job, ATTEMPT, RUNNING).time_us is None


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_end_has_its_sentence(reason):
    ended = JOB._replace(
        state=JobState.FAILED, end_reason=reason, exit_code=3, start_us=0, end_us=90 * S
    )
    sentence = end_sentence(ended._replace(message="why"), 2)
    assert sentence.endswith("(why), after 1 min 30 s in the last of 2 attempts")
    assert sentence != "failed (why), after 1 min 30 s in the last of 2 attempts"
