"""Values survive the way through a row, and damage is named."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runner.job_spec import ConcurrencySpec, JobSpec, RetryPolicy, SourceSpec
from agent_runner.outcome import EndReason, LimitRecord, SandboxRecord
from agent_runner.sandbox_spec import SandboxSpec
from daemon.errors import StoreUnusableError
from daemon.jobs.models import AgentIdentity, Attempt, Job, NewJob
from daemon.jobs.rows import (
    attempt_from_row,
    attempt_values,
    job_from_row,
    job_state_values,
)
from daemon.jobs.spec_text import MAX_KNOWN_CHARS, decode_spec, encode_spec
from daemon.jobs.states import JobState

TEXTS = st.text(max_size=5)
SPECS = st.builds(
    JobSpec,
    argv=st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    name=TEXTS,
    env=st.dictionaries(TEXTS, TEXTS, max_size=2),
    source=st.builds(SourceSpec),
    code_dir=TEXTS,
    job_dir=TEXTS,
    timeout_s=st.floats(0, 1e7),
    idle_timeout_s=st.none() | st.floats(0, 1e7),
    sandbox=st.builds(SandboxSpec),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=2),
    priority=st.integers(-1000, 1000),
    retries=st.none()
    | st.builds(
        RetryPolicy,
        max=st.integers(0, 9),
        exit_codes=st.lists(st.integers(1, 255), max_size=2).map(tuple),
        end_reasons=st.lists(st.sampled_from(EndReason), max_size=2).map(tuple),
    ),
    concurrency=st.none() | st.builds(ConcurrencySpec, group=TEXTS, limit=st.integers(1, 9)),
    depends_on=st.lists(TEXTS, max_size=2).map(tuple),
    not_before_us=st.none() | st.integers(1),
    max_attempts=st.integers(0, 9),
)


@settings(deadline=None, database=None)
@given(SPECS)
def test_spec_round_trip(spec: JobSpec):
    """A spec comes back equal and hashable where it was."""
    assert decode_spec(encode_spec(spec)) == spec


def test_any_mapping():
    """A read-only mapping is stored as what it holds."""
    spec = JobSpec(argv=("x",), env=MappingProxyType({"A": "1"}))

    assert decode_spec(encode_spec(spec)).env == {"A": "1"}


def test_long_spec():
    """A spec too long to be remembered comes back too."""
    spec = JobSpec(argv=("x" * MAX_KNOWN_CHARS,))

    assert decode_spec(encode_spec(spec)) == spec


def test_defaults_are_stored():
    """A job keeps the defaults of the day on which it was submitted."""
    stored = json.loads(encode_spec(JobSpec(argv=("x",))))

    assert stored["timeout_s"] == 3600.0
    assert stored["sandbox"]["min"] == "landlock"


def test_foreign_value_is_a_defect():
    """A type that has no place in a row is refused when it is written, not when it is read."""
    with pytest.raises(TypeError):
        encode_spec(JobSpec(argv=(object(),)))  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["", "{}", "[]", '{"argv": []}'])
def test_damaged_job(spec: str):
    """A job that cannot be read is named."""
    job = Job(id="job7", spec=JobSpec(argv=("x",)), state=JobState.PENDING, create_us=0)

    with pytest.raises(StoreUnusableError, match="job7"):
        job_from_row((job.id, 0, spec, *job_state_values(job)))


def test_damaged_attempt():
    """So is an attempt."""
    attempt = Attempt(
        job_id="job7",
        number=2,
        state=JobState.RUNNING,
        agent=AgentIdentity(name="a", incarnation="1"),
        lease_token="t",
        start_us=0,
        expire_us=0,
        sandbox=SandboxRecord(walls_not_held=("pids",), limits=(LimitRecord("pids", 5.0, ""),)),
    )
    row = attempt_values(attempt)
    assert attempt_from_row(row) == attempt

    with pytest.raises(StoreUnusableError, match="attempt 2 of job job7"):
        attempt_from_row(tuple("NOWHERE" if value == "RUNNING" else value for value in row))


def test_new_jobs_are_values():
    """Two equal submits are equal values."""
    spec = JobSpec(argv=("x",))

    assert NewJob(id="a", spec=spec, request_id=None, payload_sha256="") == NewJob(
        id="a", spec=spec, request_id=None, payload_sha256=""
    )
