"""The job store of one server: a SQLite file.

Changes go through one writer thread (``group_commit``) and are answered after their commit; reads use a second,
read-only connection on the event loop's own thread, where they take microseconds and see every answered change.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from agent_runner.outcome import Outcome, OutputFile
from daemon.clock import Clock
from daemon.errors import JobNotFoundError, StoreUnavailableError
from daemon.jobs import statements
from daemon.jobs.group_commit import GroupCommit
from daemon.jobs.job_events import read_events
from daemon.jobs.job_pages import Kept, read_page
from daemon.jobs.job_writer import JobWriter
from daemon.jobs.leases import lease_lost
from daemon.jobs.models import (
    MAX_TRIGGERED,
    AgentIdentity,
    AgentOffer,
    Attempt,
    Claim,
    Excess,
    Job,
    JobEvent,
    JobPage,
    LeaseRef,
    NewJob,
    NextMoments,
    QueueChange,
    Removed,
    RemovedLog,
    Renewal,
    Waits,
)
from daemon.jobs.queue_keys import group_key, is_served, queue_key
from daemon.jobs.recent_events import RecentEvents
from daemon.jobs.removal import remove_ended
from daemon.jobs.request_ids import check_payload
from daemon.jobs.rows import (
    STEADY_HOLD,
    WALL_HOLD,
    Row,
    attempt_from_row,
    job_from_row,
)
from daemon.jobs.sqlite_connection import open_for_writing
from daemon.jobs.sqlite_failures import store_unusable
from daemon.jobs.states import JobState
from daemon.tokens.sqlite_tokens import SqliteTokens

T = TypeVar("T")
_Written: TypeAlias = tuple[T, QueueChange | None, list[JobEvent]]
"""The result of a write, and what else it brought about."""


class SqliteJobStore:
    """A ``JobStore`` in one file; the file is made with mode 0600 if it is not there.

    One per file at a time: the caller holds the lock of the state directory.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._changes = JobWriter(clock)
        self._writer = GroupCommit(
            partial(open_for_writing, self._path), partial(store_unusable, self._path)
        )
        self._reader: sqlite3.Connection | None = None
        self._recent = RecentEvents()
        self._listener: Callable[[QueueChange], None] | None = None
        self.tokens = SqliteTokens(self._writer.run, self._read)

    def listen(self, listener: Callable[[QueueChange], None]) -> None:
        """Have each change tell what else it brought about."""
        self._listener = listener

    @property
    def commits(self) -> int:
        """How many transactions have changed something since ``open``; a measure of cost."""
        return self._writer.commits

    async def open(self) -> None:
        """Open or make the file and migrate it.

        Raises:
            StoreUnusableError: Damaged, not writable, foreign, or written by a newer version.
        """
        await self._writer.open()
        try:
            self._reader = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None
            )
        except sqlite3.Error as exc:
            await self._writer.close()
            raise store_unusable(self._path, exc) from exc

    async def close(self) -> None:
        """Commit what was accepted and close the file. Idempotent."""
        if self._reader is not None:
            # First, so that the writer is the last one, which folds the log file into the database.
            self._reader.close()
            self._reader = None
        await self._writer.close()

    async def submit(
        self, jobs: Sequence[NewJob], then: Callable[[list[Job]], None] | None = None
    ) -> list[Job]:
        """Accept all jobs or none; a known request id returns the job it made.

        Raises:
            RequestIdReusedError: A request id is known with another payload.
        """
        return await self._write(lambda db: self._changes.submit(db, jobs), then)

    async def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Return those request ids that have made a job."""
        rows = self._read(statements.SELECT_KNOWN_REQUESTS, (json.dumps([*request_ids]),))
        return {request_id for (request_id,) in rows}

    async def requested(self, request_id: str, payload_sha256: str) -> Job | None:
        """Return the job that a request id has made; None if it has made none.

        Raises:
            RequestIdReusedError: It has made one of another payload.
        """
        for known_sha256, *row in self._read(statements.SELECT_JOB_BY_REQUEST, (request_id,)):
            check_payload(request_id, payload_sha256, known_sha256)
            return job_from_row(tuple(row))
        return None

    async def claim(
        self,
        offer: AgentOffer,
        limit: int,
        lease_s: float,
        then: Callable[[list[Claim]], None] | None = None,
    ) -> list[Claim]:
        """Give up to ``limit`` pending jobs to an agent-runner, best first."""
        return await self._write(lambda db: self._changes.claim(db, offer, limit, lease_s), then)

    async def renew(
        self, agent: AgentIdentity, leases: Sequence[LeaseRef], lease_s: float
    ) -> Renewal:
        """Renew leases of one agent-runner."""
        return await self._write(lambda db: self._changes.renew(db, agent, leases, lease_s))

    async def finish(
        self,
        lease: LeaseRef,
        outcome: Outcome,
        triggered: Sequence[NewJob] = (),
        then: Callable[[Job], None] | None = None,
    ) -> Job:
        """End an attempt and its job, or put the job back. Repeating it is harmless.

        Raises:
            LeaseLostError: The lease is not held, and was not ended by this same call before.
        """
        return await self._write(
            lambda db: self._changes.finish(db, lease, outcome, triggered), then
        )

    async def give_back(self, leases: Sequence[LeaseRef], begun: Collection[LeaseRef]) -> list[Job]:
        """End attempts that their agent-runner does not have; only one that never arrived does not count."""
        return await self._write(lambda db: self._changes.give_back(db, leases, begun))

    async def describe_log(self, job_id: str, number: int, length: int, sha256: str) -> None:
        """Record what the log of an ended attempt came to be, unless that is known."""
        values = (length, sha256, job_id, number)
        await self._writer.run(lambda db: db.execute(statements.DESCRIBE_LOG, values).rowcount)

    async def check_lease(self, lease: LeaseRef) -> None:
        """Check that a lease is held.

        Raises:
            LeaseLostError: It is not.
        """
        held = (lease.job_id, lease.attempt, lease.lease_token)
        if not self._read(statements.SELECT_HELD, held):
            raise lease_lost(lease)

    async def held(self, agent: AgentIdentity) -> list[LeaseRef]:
        """Return the leases that one start of an agent-runner holds, the oldest job first."""
        rows = self._read(statements.SELECT_HELD_BY, (agent.name, agent.incarnation))
        return [LeaseRef(job_id=row[0], attempt=row[1], lease_token=row[2]) for row in rows]

    async def cancel(self, job_id: str) -> Job:
        """End a queued job, or mark a running one CANCELLING.

        Raises:
            JobNotFoundError: No such job.
            JobNotCancellableError: It has ended.
        """
        return await self._write(lambda db: self._changes.cancel(db, job_id))

    async def end_predecessors(self, agent: AgentIdentity) -> list[Job]:
        """End the leases of every other incarnation of this agent-runner."""
        return await self._write(lambda db: self._changes.end_predecessors(db, agent))

    async def expire_leases(self) -> list[Job]:
        """End the leases whose time is over. Asks the reader first: mostly there is nothing to write."""
        if not self._read(statements.SELECT_ANY_EXPIRED, (self._clock.steady_us(),)):
            return []
        return await self._write(self._changes.expire_leases)

    async def extend_all_leases(self, lease_s: float) -> None:
        """Give each live lease a full term from here."""
        await self._write(lambda db: self._changes.extend_all_leases(db, lease_s))

    async def wake_due(self, limit: int) -> NextMoments:
        """Let jobs be claimed whose moment has come. Asks the reader first: mostly one timer was set for another job."""
        moments = self._next_moments()
        if _is_due(moments.wall_us, self._clock.now_us()) or _is_due(
            moments.steady_us, self._clock.steady_us()
        ):
            await self._write(lambda db: self._changes.wake_due(db, limit))
            moments = self._next_moments()
        return moments

    async def cap_backoffs(self) -> None:
        """Let no backoff last longer from here than it was to last in all."""
        await self._write(self._changes.cap_backoffs)

    async def waits_on(self, job_id: str) -> Waits:
        """Tell what keeps a job from being claimed.

        Raises:
            JobNotFoundError: No such job.
        """
        job = await self.get(job_id)
        if job.state is JobState.BLOCKED:
            unmet = {row[0] for row in self._read(statements.SELECT_UNMET, (job_id,))}
            return Waits(dependencies=tuple(i for i in job.spec.depends_on if i in unmet))
        if job.state is not JobState.PENDING:
            return Waits()
        ahead_of = (queue_key(job.spec), job.spec.priority, job_id)
        ((ahead,),) = self._read(statements.COUNT_AHEAD, ahead_of)
        waits = Waits(ready_us=job.ready_us, ahead=ahead)
        group = job.spec.concurrency
        if group is None:
            return waits
        held = self._read(statements.LIST_HOLDING, (group_key(job.spec),))
        holders = tuple(job_id for (job_id,) in held)
        if len(holders) < group.limit:
            return waits
        return waits._replace(group=group.group, group_holders=holders)

    async def newest_retry(self, job_id: str) -> Job | None:
        """Return the newest job that repeats this one."""
        rows = self._read(statements.NEWEST_RETRY, (job_id,))
        return job_from_row(rows[0]) if rows else None

    async def children(self, job_id: str) -> list[str]:
        """Return the ids of the jobs that this one triggered."""
        return [row[0] for row in self._read(statements.LIST_CHILDREN, (job_id, MAX_TRIGGERED))]

    async def remove_ended(self, excess: Excess, spared: Collection[str], limit: int) -> Removed:
        """Remove up to ``limit`` ended jobs with their attempts and events, the oldest first."""
        return await self._write(
            lambda db: remove_ended(db, excess, spared, limit), lambda _: self._recent.forget()
        )

    async def removed_logs(self, limit: int) -> list[RemovedLog]:
        """Return removed jobs whose logs were not forgotten yet."""
        rows = self._read(statements.LIST_REMOVED_LOGS, (limit,))
        return [RemovedLog(job_id=job_id, attempts=attempts) for job_id, attempts in rows]

    async def forget_removed_logs(self, job_ids: Collection[str]) -> None:
        """Forget removed jobs whose logs are gone."""
        ids = json.dumps([*job_ids])
        await self._write(lambda db: db.execute(statements.FORGET_REMOVED_LOGS, (ids,)).rowcount)

    async def log_bytes(self) -> int:
        """Return how long the logs of all ended attempts are together."""
        return int(self._read(statements.LOG_BYTES, ())[0][0])

    async def last_removed_event_id(self) -> int:
        """Return the id of the newest event that was removed with its job."""
        return int(self._read(statements.SELECT_REMOVED_EVENT, ())[0][0])

    async def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            JobNotFoundError: No such job.
        """
        rows = self._read(statements.SELECT_JOB, (job_id,))
        if not rows:
            raise JobNotFoundError(f"no job has the id {job_id!r}")
        return job_from_row(rows[0])

    async def in_projects(self, job_ids: Collection[str], projects: Collection[str]) -> set[str]:
        """Return those of some jobs that are of some projects."""
        rows = self._read(statements.SELECT_KEYS, (json.dumps([*job_ids]),))
        return {job_id for job_id, key in rows if is_served(key, projects)}

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of one job, oldest first."""
        rows = self._read(statements.SELECT_ATTEMPTS, (job_id,))
        return [attempt_from_row(row) for row in rows]

    async def artifacts(self, job_id: str, number: int) -> list[OutputFile]:
        """Return the outputs of one attempt, by name."""
        rows = self._read(statements.SELECT_ARTIFACTS, (job_id, number))
        return [OutputFile(*row) for row in rows]

    async def referenced(self, digests: Collection[str]) -> set[str]:
        """Return those contents that an output has."""
        rows = self._read(statements.SELECT_REFERENCED, (json.dumps([*digests]),))
        return {digest for (digest,) in rows}

    async def events(self, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent]:
        """Return events after an id, oldest first; empty ``job_ids`` keeps all."""
        recent = self._recent.after(after_id, limit, job_ids)
        return read_events(self._read, after_id, limit, job_ids) if recent is None else recent

    async def last_event_id(self) -> int:
        """Return the id of the newest event; 0 if there is none."""
        return int(self._read(statements.LAST_EVENT_ID, ())[0][0])

    async def count(self, state: JobState) -> int:
        """Return how many jobs are in a state."""
        return int(self._read(statements.COUNT_JOBS, (state,))[0][0])

    async def _write(
        self, write: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None
    ) -> T:
        def run(connection: sqlite3.Connection) -> _Written[T]:
            try:
                result = write(connection)
            finally:
                change, events = self._changes.take_change(), self._changes.take_events()
            return result, change, events

        def tell(written: _Written[T]) -> None:
            result, change, events = written
            self._recent.add(events)
            try:
                if change is not None and self._listener is not None:
                    self._listener(change)
            finally:  # an assignment must go out whatever a listener does
                if then is not None:
                    then(result)

        return (await self._writer.run(run, tell))[0]

    def _next_moments(self) -> NextMoments:
        wall_us, steady_us = (
            self._read(statements.NEXT_READY, (hold,))[0][0] for hold in (WALL_HOLD, STEADY_HOLD)
        )
        return NextMoments(wall_us=wall_us, steady_us=steady_us)

    def _read(self, sql: str, values: Row) -> list[Row]:
        if self._reader is None:
            raise StoreUnavailableError("the job store is closed")
        try:
            # All rows at once: a statement left open would pin its snapshot and the write-ahead log.
            return self._reader.execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise store_unusable(self._path, exc) from exc

    # Last, because its name hides the built-in one from every annotation after it.
    async def list(  # noqa: PLR0913 - the filters of the port
        self,
        states: Collection[JobState],
        page_size: int,
        page_token: str,
        *,
        labels: Mapping[str, str] | None = None,
        since_us: int = 0,
        projects: Collection[str] | None = None,
    ) -> JobPage:
        """Return a page of jobs, newest first; empty filters keep all.

        Raises:
            UsageError: The page token is not one of ours.
        """
        kept = Kept(states=states, labels=labels or {}, projects=projects, since_us=since_us)
        return await read_page(self._read, kept, page_size, page_token)


def _is_due(moment_us: int | None, now_us: int) -> bool:
    return moment_us is not None and moment_us <= now_us
