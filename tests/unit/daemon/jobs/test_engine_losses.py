"""What becomes of a job whose container went away with its engine."""

from __future__ import annotations

from agent_runner.job_spec import JobSpec, RetryPolicy
from agent_runner.outcome import EndReason, Outcome
from daemon.jobs import lifecycle
from daemon.jobs.models import MAX_LOSSES, AgentIdentity, Attempt, Job
from daemon.jobs.states import JobState

GONE = Outcome(end_reason=EndReason.ENGINE_GONE, message="the engine does not answer")
S = 1_000_000


def ended(job: Job) -> Job:
    """Return a job after one more attempt of it lost its engine, at the steady moment 0."""
    running = job._replace(state=JobState.RUNNING, attempt=job.attempt + 1)
    attempt = Attempt(
        job_id=job.id,
        number=running.attempt,
        state=JobState.RUNNING,
        agent=AgentIdentity("a", "i"),
        lease_token="t",
        start_us=0,
        expire_us=0,
    )
    after, end = lifecycle.finished(running, attempt, GONE, 5, 0)
    assert (end.state, end.end_reason) == (JobState.FAILED, EndReason.ENGINE_GONE)
    return after


def a_job(**spec: object) -> Job:
    wanted = JobSpec(argv=("true",), **spec)  # type: ignore[arg-type]
    return Job(id="j", spec=wanted, state=JobState.PENDING, create_us=0)


def test_it_is_a_loss_and_waits_for_the_engine():
    """Three times without a word in the job file, each after a longer wait; then it has failed, with its own reason."""
    job, waits = a_job(), []
    for _ in range(MAX_LOSSES):
        job = ended(job)
        assert (job.state, job.failures) == (JobState.PENDING, 0)
        waits.append(job.ready_us)
        assert job.backoff_us == job.ready_us
    assert (job.losses, waits) == (MAX_LOSSES, [S, 4 * S, 16 * S])
    job = ended(job)
    assert (job.state, job.end_reason) == (JobState.FAILED, EndReason.ENGINE_GONE)


def test_what_the_job_file_says_comes_first():
    """A job that names the reason has its own tries and waits; ``max_attempts`` bounds both together."""
    named = RetryPolicy(max=1, backoff_s=7, end_reasons=(EndReason.ENGINE_GONE,))
    job = ended(a_job(retries=named))
    assert (job.failures, job.losses, job.ready_us) == (1, 0, 7 * S)
    assert ended(job).losses == 1
    assert ended(a_job(max_attempts=1)).state is JobState.FAILED
