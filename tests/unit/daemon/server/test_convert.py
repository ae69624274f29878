"""Domain values to protobuf and back."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from agent_runner import wire
from agent_runner.errors import InvalidJobSpecError
from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy, SourceSpec
from agent_runner.outcome import EndReason, LimitRecord, LogSummary, Outcome, SandboxRecord
from agent_runner.sandbox_spec import SandboxSpec
from daemon.errors import UsageError
from daemon.jobs.models import AgentIdentity, Attempt, Job, JobEvent, LeaseRef
from daemon.jobs.states import JobState
from daemon.server import convert
from runner.v1 import agent_service_pb2, job_pb2

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SECONDS = st.floats(0.001, 86_400).map(lambda value: round(value, 9))
SPECS = st.builds(
    JobSpec,
    argv=st.lists(TEXT, min_size=1).map(tuple),
    name=TEXT,
    env=st.dictionaries(TEXT, TEXT),
    source=st.builds(SourceSpec, kind=st.sampled_from(["none", "copy"]), path=TEXT),
    code_dir=TEXT,
    job_dir=TEXT,
    timeout_s=SECONDS,
    idle_timeout_s=st.none() | SECONDS,
    sandbox=st.builds(
        SandboxSpec,
        kind=TEXT,
        min=TEXT,
        network=TEXT,
        memory_bytes=st.integers(0, 2**63 - 1),
        pids=st.integers(0, 2**31 - 1),
        output_bytes=st.integers(0, 2**63 - 1),
    ),
    labels=st.dictionaries(TEXT, TEXT),
    priority=st.integers(-1000, 1000),
    retries=st.none()
    | st.builds(
        RetryPolicy,
        max=st.integers(0, 100),
        backoff_s=st.just(0.0) | SECONDS,
        exit_codes=st.lists(st.integers(1, 255)).map(tuple),
        end_reasons=st.lists(st.sampled_from(EndReason)).map(tuple),
    ),
    concurrency=st.none() | st.builds(ConcurrencySpec, group=TEXT, limit=st.integers(1, 1000)),
    depends_on=st.lists(TEXT).map(tuple),
    not_before_us=st.none() | st.integers(0, 253_402_300_799_000_000),
    max_attempts=st.integers(0, 1000),
)


@given(SPECS)
def test_specification_survives_the_wire(spec):
    """To protobuf, to bytes and back is the same value."""
    sent = wire.job_spec_to_pb(spec).SerializeToString(deterministic=True)

    back = wire.job_spec_from_pb(job_pb2.JobSpec.FromString(sent))

    assert back.timeout_s == pytest.approx(spec.timeout_s)
    assert wire.job_spec_to_pb(back).SerializeToString(deterministic=True) == sent
    assert (back.argv, back.env, back.source, back.sandbox, back.labels) == (
        spec.argv,
        spec.env,
        spec.source,
        spec.sandbox,
        spec.labels,
    )
    assert (back.concurrency, back.depends_on, back.not_before_us, back.max_attempts) == (
        spec.concurrency,
        spec.depends_on,
        spec.not_before_us,
        spec.max_attempts,
    )
    assert (back.retries is None) == (spec.retries is None)


def test_unknown_reason_to_retry():
    """A reason that only a newer client knows is refused, not dropped."""
    message = job_pb2.JobSpec(retries=job_pb2.RetryPolicy(end_reasons=[99]))  # type: ignore[list-item]

    with pytest.raises(InvalidJobSpecError, match=r"retries.on: 99 is not the number"):
        wire.job_spec_from_pb(message)


def test_moment_is_rounded_up():
    """A job never starts before the nanosecond that was asked for."""
    assert wire.time_from_pb(Timestamp(seconds=1, nanos=1)) == 1_000_001
    assert wire.time_from_pb(Timestamp(seconds=1, nanos=1000)) == 1_000_001


def test_empty_fields_of_a_specification_have_defaults():
    """A client may say no more than the command."""
    assert wire.job_spec_from_pb(job_pb2.JobSpec(argv=["true"])) == JobSpec(argv=("true",))


@pytest.mark.parametrize("reason", EndReason)
def test_end_reasons_have_numbers(reason):
    """Each has its own, and back is the same."""
    number = wire.end_reason_to_pb(reason)

    assert job_pb2.EndReason.Name(number) == f"END_REASON_{reason}"
    assert wire.end_reason_from_pb(number) is reason


def test_unknown_end_reason_is_none():
    """UNSPECIFIED, and what only a newer peer knows."""
    assert wire.end_reason_to_pb(None) == 0
    assert wire.end_reason_from_pb(0) is None
    assert wire.end_reason_from_pb(999) is None


@pytest.mark.parametrize("exit_code", [None, 0, 7])
def test_outcome_survives_the_wire(exit_code):
    """No exit code is not the exit code 0."""
    outcome = Outcome(
        end_reason=EndReason.SIGNALED,
        exit_code=exit_code,
        message="no",
        sandbox=SandboxRecord(
            kind="filesystem",
            tier="bwrap",
            walls_not_held=("network",),
            limits=(LimitRecord("cpus", 1.5, "cgroup-v1"),),
        ),
        log=LogSummary(length=5, sha256="ab", truncated="size_limit"),
        interrupted=True,
    )
    request = agent_service_pb2.FinishAttemptRequest(
        exit_code=exit_code,
        message="no",
        sandbox=wire.sandbox_to_pb(outcome.sandbox),
        log_bytes=5,
        log_sha256="ab",
        log_truncated="size_limit",
        interrupted=True,
    )

    assert wire.outcome_from_pb(request, EndReason.SIGNALED) == outcome


def test_job_with_its_attempts():
    """Times are exact to the microsecond, and the lease token stays in the server."""
    job = Job(
        id="j",
        spec=JobSpec(argv=("true",)),
        state=JobState.RUNNING,
        create_us=1_700_000_000_000_001,
        attempt=1,
        start_us=1_700_000_001_000_000,
    )
    attempt = Attempt(
        job_id="j",
        number=1,
        state=JobState.RUNNING,
        agent=AgentIdentity(name="a", incarnation="i"),
        lease_token="secret-token",
        start_us=1_700_000_001_000_000,
        expire_us=0,
    )

    message = convert.job_to_pb(job, [attempt])

    assert message.create_time.ToMicroseconds() == job.create_us
    assert (message.HasField("end_time"), message.HasField("exit_code")) == (False, False)
    assert message.attempts[0].agent == "a"
    assert b"secret-token" not in message.SerializeToString()


def test_event_keeps_its_exit_code():
    """Zero is told, none is not."""
    event = JobEvent(id=1, job_id="j", state=JobState.SUCCEEDED, attempt=1, time_us=1, exit_code=0)

    assert convert.event_to_pb(event).HasField("exit_code")


def test_lease_survives_the_wire():
    """All three parts."""
    lease = LeaseRef(job_id="j", attempt=2, lease_token="t")

    assert convert.lease_from_pb(convert.lease_to_pb(lease)) == lease


@pytest.mark.parametrize("state", JobState)
def test_states_have_numbers(state):
    """Each has its own, and back is the same."""
    number = job_pb2.JobState.Value(f"JOB_STATE_{state}")

    assert convert.states_from_pb([number]) == {state}


@pytest.mark.parametrize("number", [0, 99])
def test_unknown_state_is_refused(number):
    """UNSPECIFIED is no filter."""
    with pytest.raises(UsageError):
        convert.states_from_pb([number])
