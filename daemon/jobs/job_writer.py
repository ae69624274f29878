"""What each change of the store does to the database; runs in the writer's thread, inside its transaction."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial

from agent_runner.outcome import Outcome
from agent_runner.project_names import DEFAULT_PROJECT
from daemon.clock import Clock
from daemon.jobs import lifecycle, statements
from daemon.jobs.claimable import best_pending
from daemon.jobs.dependencies import check_known
from daemon.jobs.group_lanes import settle
from daemon.jobs.leases import ended_by, expiry_us, grant, is_held, lease_lost
from daemon.jobs.models import (
    AgentIdentity,
    AgentOffer,
    Attempt,
    Claim,
    Job,
    JobEvent,
    LeaseRef,
    NewJob,
    QueueChange,
    Renewal,
)
from daemon.jobs.queue_keys import group_key, project_of, workflow_key
from daemon.jobs.request_ids import check_payload
from daemon.jobs.rows import (
    STEADY_HOLD,
    WALL_HOLD,
    Row,
    attempt_end_values,
    attempt_from_row,
    attempt_values,
    event_values,
    job_from_row,
    job_state_values,
    new_job_values,
)
from daemon.jobs.states import JobState
from daemon.jobs.workflows import GivenOutput, checked_output, may_trigger, with_vars
from daemon.jobs.writer_reads import read, read_attempt, read_job


class JobWriter:
    """The changes, one method each; all take the connection whose transaction they belong to.

    The transaction excludes every other writer, so reading a row, deciding and writing it is one step.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[JobEvent] = []
        self._moved: list[Job] = []
        self._claimable = False
        self._timed = False

    def take_change(self) -> QueueChange | None:
        """Return what the last method brought about beside its result, once; called after each, also after one that failed."""
        if not (self._moved or self._claimable or self._timed):
            return None
        change = QueueChange(jobs=tuple(self._moved), claimable=self._claimable, timed=self._timed)
        self._moved, self._claimable, self._timed = [], False, False
        return change

    def take_events(self) -> list[JobEvent]:
        """Return the events of the last method, once; called after each, also after one that failed."""
        events, self._events = self._events, []
        return events

    def submit(self, connection: sqlite3.Connection, jobs: Sequence[NewJob]) -> list[Job]:
        """Store jobs; one that is known by its request id is returned as it is.

        Raises:
            RequestIdReusedError: A request id is known with another payload.
            InvalidJobSpecError: A job depends on one that does not exist.
        """
        return [self._submit_one(connection, new) for new in jobs]

    def claim(
        self, connection: sqlite3.Connection, offer: AgentOffer, limit: int, lease_s: float
    ) -> list[Claim]:
        """Start the best pending jobs that the offer can take."""
        now_us = self._clock.now_us()
        expire_us = expiry_us(self._clock, lease_s)
        claims: list[Claim] = []
        while jobs := best_pending(connection, offer, limit - len(claims)):
            for job in jobs:
                started = lifecycle.started(job, now_us)
                attempt = grant(started, offer.agent, now_us, expire_us)
                connection.execute(statements.INSERT_ATTEMPT, attempt_values(attempt))
                self._save(connection, started)
                outputs = partial(_workflow_outputs, connection, job.spec.project)
                spec = with_vars(job.spec, outputs)
                claims.append(Claim(lease=attempt.lease, spec=spec))
                if job.spec.concurrency is not None:
                    break  # its group may have closed the jobs after it, and has opened others
            else:
                break
        return claims

    def renew(
        self,
        connection: sqlite3.Connection,
        agent: AgentIdentity,
        leases: Sequence[LeaseRef],
        lease_s: float,
    ) -> Renewal:
        """Renew leases; tells which are lost and which belong to a job that is being cancelled."""
        times = (expiry_us(self._clock, lease_s), self._clock.now_us())
        lost = []
        cancelling = []
        for lease in leases:
            renewed = connection.execute(
                statements.RENEW_LEASE,
                (*times, *_lease_values(lease), agent.name, agent.incarnation),
            )
            if not renewed.rowcount:
                lost.append(lease)
                continue
            ((state,),) = read(connection, statements.SELECT_JOB_STATE, (lease.job_id,))
            if state == JobState.CANCELLING:
                cancelling.append(lease)
        return Renewal(lost=tuple(lost), cancelling=tuple(cancelling))

    def finish(
        self,
        connection: sqlite3.Connection,
        lease: LeaseRef,
        outcome: Outcome,
        triggered: Sequence[NewJob] = (),
    ) -> Job:
        """End an attempt as its agent-runner reports it, and accept what follows if that ends the job.

        Raises:
            LeaseLostError: The lease is not held, and was not ended by this same report.
        """
        attempt = read_attempt(connection, lease)
        if ended_by(lease, attempt, outcome):
            return read_job(connection, lease.job_id)
        if attempt is None or not is_held(lease, attempt):
            raise lease_lost(lease)
        job = read_job(connection, lease.job_id)
        outputs = partial(_workflow_outputs, connection, job.spec.project)
        outcome = checked_output(job, outcome, outputs)
        ended, ended_attempt = lifecycle.finished(
            job, attempt, outcome, self._clock.now_us(), self._clock.steady_us()
        )
        if outcome.workflow_output and ended.state.final:
            values = (outcome.workflow_output, job.id)
            connection.execute(statements.NOTE_WORKFLOW_OUTPUT, values)
        self._save_end(connection, ended, ended_attempt)
        if outcome.outputs.files:
            connection.executemany(
                statements.INSERT_ARTIFACT,
                [(lease.job_id, lease.attempt, *file) for file in outcome.outputs.files],
            )
        if triggered and may_trigger(ended):
            for new in triggered:
                child = self._submit_one(connection, new)
                self._moved.append(child)
                self._claimable |= child.state is JobState.PENDING
        return ended

    def give_back(
        self,
        connection: sqlite3.Connection,
        leases: Sequence[LeaseRef],
        begun: Collection[LeaseRef],
    ) -> list[Job]:
        """End attempts that their agent-runner does not have."""
        jobs = []
        for lease in leases:
            attempt = read_attempt(connection, lease)
            if attempt is None or not is_held(lease, attempt):
                continue
            job = read_job(connection, lease.job_id)
            ended, ended_attempt = lifecycle.given_back(
                job, attempt, self._clock.now_us(), begun=lease in begun
            )
            self._save_end(connection, ended, ended_attempt)
            jobs.append(ended)
        return jobs

    def cancel(self, connection: sqlite3.Connection, job_id: str) -> Job:
        """End a queued job or ask for the end of a running one.

        Raises:
            JobNotFoundError: No such job.
            JobNotCancellableError: It has ended.
        """
        job = read_job(connection, job_id)
        cancelled = lifecycle.cancelled(job, self._clock.now_us())
        if cancelled.state is not job.state:
            self._save(connection, cancelled)
        return cancelled

    def end_predecessors(self, connection: sqlite3.Connection, agent: AgentIdentity) -> list[Job]:
        """End what other incarnations of an agent-runner hold."""
        return self._lose(
            connection, statements.SELECT_PREDECESSORS, (agent.name, agent.incarnation)
        )

    def expire_leases(self, connection: sqlite3.Connection) -> list[Job]:
        """End what nobody has renewed in time."""
        return self._lose(connection, statements.SELECT_EXPIRED, (self._clock.steady_us(),))

    def extend_all_leases(self, connection: sqlite3.Connection, lease_s: float) -> None:
        """Give each live lease a full term."""
        connection.execute(statements.EXTEND_ALL_LEASES, (expiry_us(self._clock, lease_s),))

    def wake_due(self, connection: sqlite3.Connection, limit: int) -> None:
        """Let jobs be claimed whose moment has come."""
        clocks = ((WALL_HOLD, self._clock.now_us()), (STEADY_HOLD, self._clock.steady_us()))
        for hold, now_us in clocks:
            groups = read(connection, statements.WAKE_DUE, (hold, now_us, limit))
            limit -= len(groups)
            self._claimable |= bool(groups)
            for group in {group for (group,) in groups if group is not None}:
                settle(connection, group)

    def cap_backoffs(self, connection: sqlite3.Connection) -> None:
        """Let no backoff last longer from here than it was to last in all."""
        now_us = self._clock.steady_us()
        connection.execute(statements.CAP_BACKOFFS, (now_us, STEADY_HOLD, now_us))

    def _submit_one(self, connection: sqlite3.Connection, new: NewJob) -> Job:
        if new.request_id is not None:
            known = read(connection, statements.SELECT_JOB_BY_REQUEST, (new.request_id,))
            if known:
                payload_sha256, *row = known[0]
                check_payload(new.request_id, new.payload_sha256, payload_sha256)
                return job_from_row(tuple(row))
        now_us = self._clock.now_us()
        states: dict[str, JobState] = {}
        if new.spec.depends_on:
            states = _states(connection, new.spec.depends_on, new.spec.project)
            check_known(new.spec.depends_on, states.__contains__)
        job = lifecycle.submitted(new, states, now_us)
        self._note(connection, job, now_us)
        try:
            connection.execute(statements.INSERT_JOB, new_job_values(new, job))
        except sqlite3.IntegrityError as exc:
            raise RuntimeError(f"job id {new.id} is already taken") from exc
        if states and not job.state.final:
            connection.executemany(
                statements.INSERT_DEPENDENCY,
                [(other, job.id, state.final) for other, state in states.items()],
            )
        self._timed |= job.ready_us is not None
        if (group := group_key(new.spec)) is not None:
            settle(connection, group)
        return job

    def _lose(self, connection: sqlite3.Connection, select: str, values: Row) -> list[Job]:
        jobs = []
        for row in read(connection, select, values):
            attempt = attempt_from_row(row)
            job = read_job(connection, attempt.job_id)
            lost, lost_attempt = lifecycle.lost(job, attempt, self._clock.now_us())
            self._save_end(connection, lost, lost_attempt)
            jobs.append(lost)
        return jobs

    def _save_end(self, connection: sqlite3.Connection, job: Job, attempt: Attempt) -> None:
        connection.execute(
            statements.UPDATE_ATTEMPT,
            (*attempt_end_values(attempt), attempt.job_id, attempt.number),
        )
        self._save(connection, job)

    def _save(self, connection: sqlite3.Connection, job: Job) -> None:
        """Store a job that has changed its state, and what follows from that for others."""
        self._write(connection, job)
        if not job.state.final:
            return
        ended = deque((job,))
        while ended:
            for other in self._dependents_after(connection, ended.popleft()):
                self._write(connection, other)
                self._moved.append(other)
                self._claimable |= other.state is JobState.PENDING
                if other.state.final:
                    ended.append(other)

    def _dependents_after(self, connection: sqlite3.Connection, ended: Job) -> list[Job]:
        """Return the jobs that are to change because one has ended, in the order of their submits."""
        if not read(connection, statements.SELECT_ANY_DEPENDENT, (ended.id,)):
            return []
        rows = read(connection, statements.SELECT_DEPENDENTS, (ended.id,))
        now_us = self._clock.now_us()
        dependents = [job_from_row(row) for row in rows]
        connection.execute(statements.MEET_DEPENDENCY, (ended.id,))
        changed = []
        for job in dependents:
            if lifecycle.fails(job, ended.state):
                changed.append(lifecycle.dependency_failed(job, ended.id, ended.state, now_us))
            elif not read(connection, statements.SELECT_UNMET, (job.id,)):
                states = _states(connection, job.spec.depends_on, job.spec.project).values()
                changed.append(lifecycle.released(job, states, now_us))
        return changed

    def _note(self, connection: sqlite3.Connection, job: Job, now_us: int) -> None:
        values = event_values(job, now_us)
        event_id = connection.execute(statements.INSERT_EVENT, values).lastrowid
        self._events.append(JobEvent(event_id, *values))  # type: ignore[arg-type] # an insert has one

    def _write(self, connection: sqlite3.Connection, job: Job) -> None:
        self._note(connection, job, self._clock.now_us())
        connection.execute(statements.UPDATE_JOB, (*job_state_values(job), job.id))
        self._timed |= job.ready_us is not None
        if job.state.final and job.spec.depends_on:
            connection.execute(statements.DELETE_DEPENDENCIES, (job.id,))
        group = group_key(job.spec)
        # The one opened by a claim is for the same claim.
        if group is not None and settle(connection, group):
            self._claimable |= job.state is not JobState.RUNNING


def _states(
    connection: sqlite3.Connection, job_ids: Collection[str], project: str
) -> dict[str, JobState]:
    """Return the state of each job that is one of a project."""
    found = (
        (job_id, read(connection, statements.SELECT_STATE_AND_KEY, (job_id,))) for job_id in job_ids
    )
    return {
        job_id: JobState(rows[0][0])
        for job_id, rows in found
        if rows and project_of(rows[0][1]) == (project or DEFAULT_PROJECT)
    }


def _workflow_outputs(
    connection: sqlite3.Connection, project: str, workflow_id: str
) -> list[GivenOutput]:
    key = workflow_key(project, workflow_id)
    rows = read(connection, statements.LIST_WORKFLOW_OUTPUTS, (key,))
    return [GivenOutput(*row) for row in rows]


def _lease_values(lease: LeaseRef) -> Row:
    return (lease.job_id, lease.attempt, lease.lease_token)
