"""Judges a run from outside: every promise of DESIGN §6 that was broken is one sentence."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from daemon.jobs.lifecycle import NOT_RECEIVED_MESSAGE
from daemon.jobs.states import MOVES, JobState
from runner.v1 import job_pb2
from tests.chaos.client import Client, Watcher
from tests.chaos.job_mix import CANARY, PlannedJob
from tests.chaos.witness import Run, Witness

MAX_LOSSES = 3
"""DESIGN §6: after so many losses an attempt that is lost is the last one."""


@dataclass
class Verdict:
    """What a run came to."""

    objections: list[str] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Attempts whose agent-runner died under them."""
    given_back: int = 0
    """Attempts that were interrupted or never arrived, and do not count."""
    runs: int = 0
    overlaps: int = 0
    """Attempts that began while an earlier one of a frozen agent-runner still lived."""

    def object(self, text: str) -> None:
        self.objections.append(text)


def judge(
    client: Client,
    jobs: Sequence[PlannedJob],
    witness: Witness,
    watcher: Watcher,
    freezes: Sequence[tuple[float, float]] = (),
) -> Verdict:
    """Return what the oracle found; called when every job has ended.

    Args:
        client: Reaches the server of the run.
        jobs: All that were acknowledged.
        witness: Saw them run.
        watcher: Took the events.
        freezes: When an agent-runner stood still for longer than its lease: a lost attempt may live beside the next one.
    """
    verdict = Verdict()
    for job in jobs:
        _judge_job(verdict, job, client, witness.of(job.job_id), freezes)
    known = Counter(job.job_id for job in jobs)
    for job_id, count in known.items():
        if count > 1:
            verdict.object(f"job {job_id} answers {count} different submits")
    for run in list(witness.runs):
        if run.job_id not in known:
            verdict.object(f"a job that nobody was told of ran: {run}")
    for noise in witness.noise:
        verdict.object(f"the witness heard {noise}")
    for sentence in watcher.problems:
        verdict.object(sentence)
    for sentence in _broken_events(watcher.events, jobs):
        verdict.object(sentence)
    return verdict


def _judge_job(
    verdict: Verdict,
    job: PlannedJob,
    client: Client,
    runs: Sequence[Run],
    freezes: Sequence[tuple[float, float]],
) -> None:
    found = client.get(job.job_id)
    state = job_pb2.JobState.Name(found.state).removeprefix("JOB_STATE_")
    reason = job_pb2.EndReason.Name(found.end_reason).removeprefix("END_REASON_")
    verdict.states[f"{state} {reason}"] += 1
    ends = [attempt.end_reason for attempt in found.attempts]
    verdict.lost += ends.count(job_pb2.END_REASON_LOST)
    verdict.given_back += ends[:-1].count(job_pb2.END_REASON_CANCELLED)
    verdict.runs += len(runs)
    verdict.overlaps += sum(bool(run.beside) for run in runs)
    for sentence in (
        *_wrong_end(job, found, state, reason, ends.count(job_pb2.END_REASON_LOST)),
        *_wrong_attempts(job, found, client, runs),
        *_wrong_runs(found, runs, freezes),
    ):
        verdict.object(f"job {job.number} ({job.kind}, {job.job_id}) {sentence}")


def _wrong_attempts(
    job: PlannedJob, found: job_pb2.Job, client: Client, runs: Sequence[Run]
) -> Iterable[str]:
    if [a.number for a in found.attempts] != list(range(1, found.attempt + 1)):
        yield f"has attempts {[a.number for a in found.attempts]} of {found.attempt}"
    for attempt in found.attempts:
        seen = [run for run in runs if run.attempt == attempt.number]
        for sentence in _wrong_attempt(attempt, seen, last=attempt.number == found.attempt):
            yield f"attempt {attempt.number} {sentence}"
        for sentence in _wrong_log(job, attempt, client):
            yield f"attempt {attempt.number} has a log that {sentence}"


def _wrong_runs(
    found: job_pb2.Job, runs: Sequence[Run], freezes: Sequence[tuple[float, float]]
) -> Iterable[str]:
    for run in runs:
        if run.attempt > found.attempt:
            yield f"attempt {run.attempt} ran but is not recorded"
        if run.beside and not any(begin < run.begin < end for begin, end in freezes):
            yield f"attempt {run.attempt} began beside {run.beside}"
        if run.end is None:
            yield f"attempt {run.attempt} still runs"


def _wrong_end(
    job: PlannedJob, found: job_pb2.Job, state: str, reason: str, lost: int
) -> Iterable[str]:
    if not JobState(state).final:
        yield f"is {state}"
        return
    if reason == "LOST":
        if lost <= MAX_LOSSES:
            yield f"is LOST after {lost} losses"
        return
    if lost > MAX_LOSSES + (state == "CANCELLED"):
        yield f"lost {lost} attempts and went on"
    if job.cancel_after_s is not None and not job.ended_before_cancel:
        if (state, reason) != ("CANCELLED", "CANCELLED"):
            yield f"was to be cancelled and is {state}/{reason}"
        return
    expected = "FAILED" if job.exit_code else "SUCCEEDED"
    if (state, reason, found.exit_code) != (expected, "EXITED", job.exit_code):
        yield (
            f"is {state}/{reason} with exit code {found.exit_code} ({found.message}),"
            f" not {expected}/EXITED with {job.exit_code}"
        )


def _wrong_attempt(attempt: job_pb2.Attempt, seen: Sequence[Run], *, last: bool) -> Iterable[str]:
    reason = attempt.end_reason
    if len(seen) > 1:
        yield f"ran {len(seen)} times"
    if reason == job_pb2.END_REASON_EXITED:
        if not last:
            yield "exited, and another one followed"
        if not (seen and seen[0].done):
            yield f"exited, but its side effect is {seen}"
    elif reason not in (job_pb2.END_REASON_LOST, job_pb2.END_REASON_CANCELLED):
        yield f"ended by {job_pb2.EndReason.Name(reason)}: {attempt.message}"
    if seen and attempt.message == NOT_RECEIVED_MESSAGE:
        yield "ran, but does not count because it never arrived"


def _wrong_log(job: PlannedJob, attempt: job_pb2.Attempt, client: Client) -> Iterable[str]:
    try:
        data, end = client.log(job.job_id, attempt.number)
    except AssertionError as error:
        yield str(error)
        return
    digest = hashlib.sha256(data).hexdigest()
    # The first reader describes a log that nobody reported, so the record is older than that.
    recorded = attempt.log_sha256 or digest
    if not end.complete or end.length != len(data) or end.sha256 != digest:
        yield f"has {len(data)} bytes of {digest}, but its end says {end}"
    if recorded != digest or (attempt.log_sha256 and attempt.log_bytes != len(data)):
        yield f"has {len(data)} bytes of {digest}, but the record says {attempt.log_bytes} of {recorded}"
    if attempt.end_reason == job_pb2.END_REASON_EXITED:
        if end.truncated or data != job.expected:
            yield f"is not what was printed: {difference(data, job.expected)}, {end.truncated!r}"
    elif not job.expected.startswith(data):
        yield f"is not the beginning of what was printed: {difference(data, job.expected)}"
    if attempt.end_reason == job_pb2.END_REASON_LOST and end.truncated != "agent_died":
        yield f"of a lost attempt is called {end.truncated!r}"
    if CANARY.encode() in data:
        yield "holds the secret"


def difference(data: bytes, expected: bytes) -> str:
    """Say where two logs part."""
    common = next(
        (i for i, (a, b) in enumerate(zip(data, expected, strict=False)) if a != b),
        min(len(data), len(expected)),
    )
    return (
        f"{len(data)} bytes, {len(expected)} expected, from {common}:"
        f" {data[common : common + 60]!r} instead of {expected[common : common + 60]!r}"
    )


def _broken_events(
    events: Sequence[job_pb2.JobEvent], jobs: Collection[PlannedJob]
) -> Iterable[str]:
    for before, event in pairwise(events):
        if event.id != before.id + 1:
            yield f"event {event.id} follows event {before.id}"
    last: dict[str, tuple[JobState, int]] = {}
    for event in events:
        state = JobState(job_pb2.JobState.Name(event.state).removeprefix("JOB_STATE_"))
        if event.job_id not in last:
            if state not in (JobState.PENDING, JobState.BLOCKED):
                yield f"job {event.job_id} began as {state}"
        else:
            old, attempt = last[event.job_id]
            begins = state is JobState.RUNNING
            if state not in MOVES[old] or event.attempt != attempt + begins:
                yield f"job {event.job_id} went from {old} ({attempt}) to {state} ({event.attempt})"
        last[event.job_id] = (state, event.attempt)
    for job in jobs:
        if job.job_id not in last or not last[job.job_id][0].final:
            yield f"the last event of job {job.number} is {last.get(job.job_id)}"
