"""What each change of the store does to the database; runs in the writer's thread, inside its transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from agent_runner.outcome import Outcome
from daemon.clock import Clock
from daemon.errors import JobNotFoundError
from daemon.jobs import lifecycle, statements
from daemon.jobs.labels import matches, subset_keys
from daemon.jobs.leases import ended_by, expiry_us, grant, is_held, lease_lost
from daemon.jobs.models import (
    AgentIdentity,
    AgentOffer,
    Attempt,
    Claim,
    Job,
    LeaseRef,
    NewJob,
    Renewal,
)
from daemon.jobs.request_ids import check_payload
from daemon.jobs.rows import (
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


class JobWriter:
    """The changes, one method each; all take the connection whose transaction they belong to.

    The transaction excludes every other writer, so reading a row, deciding and writing it is one step.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def submit(self, connection: sqlite3.Connection, jobs: Sequence[NewJob]) -> list[Job]:
        """Store jobs; one that is known by its request id is returned as it is.

        Raises:
            RequestIdReusedError: A request id is known with another payload.
        """
        return [self._submit_one(connection, new) for new in jobs]

    def claim(
        self, connection: sqlite3.Connection, offer: AgentOffer, limit: int, lease_s: float
    ) -> list[Claim]:
        """Start the best pending jobs that the offer can take."""
        now_us = self._clock.now_us()
        expire_us = expiry_us(self._clock, lease_s)
        claims = []
        for job in _best_pending(connection, offer, limit):
            started = lifecycle.started(job, now_us)
            attempt = grant(started, offer.agent, now_us, expire_us)
            connection.execute(statements.INSERT_ATTEMPT, attempt_values(attempt))
            self._save(connection, started)
            claims.append(Claim(lease=attempt.lease, spec=job.spec))
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
            ((state,),) = _read(connection, statements.SELECT_JOB_STATE, (lease.job_id,))
            if state == JobState.CANCELLING:
                cancelling.append(lease)
        return Renewal(lost=tuple(lost), cancelling=tuple(cancelling))

    def finish(self, connection: sqlite3.Connection, lease: LeaseRef, outcome: Outcome) -> Job:
        """End an attempt as its agent-runner reports it.

        Raises:
            LeaseLostError: The lease is not held, and was not ended by this same report.
        """
        attempt = _attempt(connection, lease)
        if ended_by(lease, attempt, outcome):
            return _job(connection, lease.job_id)
        if attempt is None or not is_held(lease, attempt):
            raise lease_lost(lease)
        job = _job(connection, lease.job_id)
        ended, ended_attempt = lifecycle.finished(job, attempt, outcome, self._clock.now_us())
        self._save_end(connection, ended, ended_attempt)
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
            attempt = _attempt(connection, lease)
            if attempt is None or not is_held(lease, attempt):
                continue
            job = _job(connection, lease.job_id)
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
        job = _job(connection, job_id)
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

    def _submit_one(self, connection: sqlite3.Connection, new: NewJob) -> Job:
        if new.request_id is not None:
            known = _read(connection, statements.SELECT_JOB_BY_REQUEST, (new.request_id,))
            if known:
                payload_sha256, *row = known[0]
                check_payload(new, payload_sha256)
                return job_from_row(tuple(row))
        now_us = self._clock.now_us()
        job = Job(id=new.id, spec=new.spec, state=JobState.PENDING, create_us=now_us)
        try:
            connection.execute(statements.INSERT_JOB, new_job_values(new, job))
        except sqlite3.IntegrityError as exc:
            raise RuntimeError(f"job id {new.id} is already taken") from exc
        connection.execute(statements.INSERT_EVENT, event_values(job, now_us))
        return job

    def _lose(self, connection: sqlite3.Connection, select: str, values: Row) -> list[Job]:
        jobs = []
        for row in _read(connection, select, values):
            attempt = attempt_from_row(row)
            job = _job(connection, attempt.job_id)
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
        connection.execute(statements.UPDATE_JOB, (*job_state_values(job), job.id))
        connection.execute(statements.INSERT_EVENT, event_values(job, self._clock.now_us()))


def _read(connection: sqlite3.Connection, sql: str, values: Row = ()) -> list[Row]:
    # All rows at once: a statement that is not read to its end stays open and holds back the commit.
    return connection.execute(sql, values).fetchall()


def _job(connection: sqlite3.Connection, job_id: str) -> Job:
    rows = _read(connection, statements.SELECT_JOB, (job_id,))
    if not rows:
        raise JobNotFoundError(f"no job has the id {job_id!r}")
    return job_from_row(rows[0])


def _attempt(connection: sqlite3.Connection, lease: LeaseRef) -> Attempt | None:
    rows = _read(connection, statements.SELECT_ATTEMPT, (lease.job_id, lease.attempt))
    return attempt_from_row(rows[0]) if rows else None


def _lease_values(lease: LeaseRef) -> Row:
    return (lease.job_id, lease.attempt, lease.lease_token)


def _best_pending(connection: sqlite3.Connection, offer: AgentOffer, limit: int) -> list[Job]:
    rows: list[Row] = []
    for key in _matching_keys(connection, offer.labels):
        rows += _read(connection, statements.SELECT_PENDING, (key, max(limit, 0)))
    rows.sort(key=_rank)
    return [job_from_row(row[2:]) for row in rows[: max(limit, 0)]]


def _matching_keys(connection: sqlite3.Connection, offered: Mapping[str, str]) -> Sequence[str]:
    keys = subset_keys(offered)
    if keys is None:
        found = _read(connection, statements.SELECT_PENDING_LABELS)
        return [key for (key,) in found if matches(key, offered)]
    if len(keys) == 1:
        return keys
    found = _read(connection, statements.SELECT_PENDING_AMONG, (json.dumps(keys),))
    return [key for (key,) in found]


def _rank(row: Row) -> Row:
    return row[:2]
