"""The job store that forgets: the behaviour of the SQLite store in dictionaries, for throw-away servers and tests.

No method waits for anything, so each one is atomic on the event loop without a lock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from agent_runner.outcome import Outcome
from daemon.clock import Clock
from daemon.errors import JobNotFoundError
from daemon.jobs import lifecycle
from daemon.jobs.dependencies import check_known
from daemon.jobs.leases import ended_by, expiry_us, grant, is_held, lease_lost
from daemon.jobs.memory_events import MemoryEvents
from daemon.jobs.memory_queue import MemoryQueue
from daemon.jobs.memory_views import dependents_after, filtered, moment, next_moments, waits_of
from daemon.jobs.models import (
    AgentIdentity,
    AgentOffer,
    Attempt,
    Claim,
    Job,
    JobEvent,
    JobPage,
    LeaseRef,
    NewJob,
    NextMoments,
    QueueChange,
    Renewal,
    Waits,
)
from daemon.jobs.page_tokens import check_page_size, decode_page_token, encode_page_token
from daemon.jobs.request_ids import check_payload
from daemon.jobs.states import JobState


class MemoryJobStore:
    """A ``JobStore`` whose jobs end with the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._seqs: dict[str, int] = {}
        self._by_seq: list[str] = []
        self._requests: dict[str, NewJob] = {}
        self._attempts: dict[str, list[Attempt]] = {}
        self._live: dict[str, Attempt] = {}
        self._events = MemoryEvents()
        self._counts: Counter[JobState] = Counter()
        self._queue = MemoryQueue(self._job_at)
        self._dependents: dict[str, list[str]] = {}
        self._listener: Callable[[QueueChange], None] | None = None

    def listen(self, listener: Callable[[QueueChange], None]) -> None:
        """Have each change tell what else it brought about."""
        self._listener = listener

    async def open(self) -> None:
        """Do nothing: it is usable from the start."""

    async def close(self) -> None:
        """Do nothing: there is nothing to let go."""

    async def submit(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Accept all jobs or none; a known request id returns the job it made.

        Raises:
            RequestIdReusedError: A request id is known with another payload.
            InvalidJobSpecError: A job depends on one that does not exist.
        """
        requests = dict(self._requests)
        accepted: dict[str, NewJob] = {}
        for new in jobs:
            first = None if new.request_id is None else requests.get(new.request_id)
            if first is not None:
                check_payload(new, first.payload_sha256)
                continue
            if new.id in self._jobs or new.id in accepted:
                raise RuntimeError(f"job id {new.id} is already taken")
            check_known(new.spec.depends_on, lambda other: other in self._jobs or other in accepted)
            accepted[new.id] = new
            if new.request_id is not None:
                requests[new.request_id] = new
        self._requests = requests
        for new in accepted.values():
            self._accept(new)
        ids = (new.id if new.request_id is None else requests[new.request_id].id for new in jobs)
        return [self._jobs[job_id] for job_id in ids]

    async def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Return those request ids that have made a job."""
        return {request_id for request_id in request_ids if request_id in self._requests}

    async def claim(self, offer: AgentOffer, limit: int, lease_s: float) -> list[Claim]:
        """Give up to ``limit`` pending jobs to an agent-runner, best first."""
        now_us = self._clock.now_us()
        expire_us = expiry_us(self._clock, lease_s)
        claims: list[Claim] = []

        def start(job: Job) -> None:
            started = lifecycle.started(job, now_us)
            attempt = grant(started, offer.agent, now_us, expire_us)
            self._attempts.setdefault(job.id, []).append(attempt)
            self._live[job.id] = attempt
            self._save(started)
            claims.append(Claim(lease=attempt.lease, spec=job.spec))

        self._queue.take(offer.labels, start, limit)
        return claims

    async def renew(
        self, agent: AgentIdentity, leases: Sequence[LeaseRef], lease_s: float
    ) -> Renewal:
        """Renew leases of one agent-runner."""
        expire_us = expiry_us(self._clock, lease_s)
        lost = []
        cancelling = []
        for lease in leases:
            attempt = self._live.get(lease.job_id)
            if attempt is None or not is_held(lease, attempt) or attempt.agent != agent:
                lost.append(lease)
                continue
            self._save_attempt(replace(attempt, expire_us=expire_us, renew_us=self._clock.now_us()))
            if self._jobs[lease.job_id].state is JobState.CANCELLING:
                cancelling.append(lease)
        return Renewal(lost=tuple(lost), cancelling=tuple(cancelling))

    async def finish(self, lease: LeaseRef, outcome: Outcome) -> Job:
        """End an attempt and its job, or put the job back. Repeating it is harmless.

        Raises:
            LeaseLostError: The lease is not held, and was not ended by this same call before.
        """
        attempt = self._attempt(lease)
        if ended_by(lease, attempt, outcome):
            return self._jobs[lease.job_id]
        held = self._held(lease)
        job = self._jobs[lease.job_id]
        ended, ended_attempt = lifecycle.finished(
            job, held, outcome, self._clock.now_us(), self._clock.steady_us()
        )
        self._save_attempt(ended_attempt)
        self._save(ended)
        return ended

    async def give_back(self, leases: Sequence[LeaseRef], begun: Collection[LeaseRef]) -> list[Job]:
        """End attempts that their agent-runner does not have; only one that never arrived does not count."""
        jobs = []
        for lease in leases:
            attempt = self._attempt(lease)
            if attempt is None or not is_held(lease, attempt):
                continue
            job, ended = lifecycle.given_back(
                self._jobs[lease.job_id], attempt, self._clock.now_us(), begun=lease in begun
            )
            self._save_attempt(ended)
            self._save(job)
            jobs.append(job)
        return jobs

    async def describe_log(self, job_id: str, number: int, length: int, sha256: str) -> None:
        """Record what the log of an ended attempt came to be, unless that is known."""
        attempts = self._attempts.get(job_id, [])
        if not 0 < number <= len(attempts):
            return
        attempt = attempts[number - 1]
        if not attempt.state.leased and not attempt.log.sha256:
            log = replace(attempt.log, length=length, sha256=sha256)
            attempts[number - 1] = replace(attempt, log=log)

    async def check_lease(self, lease: LeaseRef) -> None:
        """Check that a lease is held.

        Raises:
            LeaseLostError: It is not.
        """
        self._held(lease)

    async def held(self, agent: AgentIdentity) -> list[LeaseRef]:
        """Return the leases that one start of an agent-runner holds, the oldest job first."""
        live = (attempt for attempt in self._live.values() if attempt.agent == agent)
        return [attempt.lease for attempt in sorted(live, key=self._seq_of)]

    async def cancel(self, job_id: str) -> Job:
        """End a queued job, or mark a running one CANCELLING.

        Raises:
            JobNotFoundError: No such job.
            JobNotCancellableError: It has ended.
        """
        job = await self.get(job_id)
        cancelled = lifecycle.cancelled(job, self._clock.now_us())
        if cancelled.state is not job.state:
            self._save(cancelled)
        return cancelled

    async def end_predecessors(self, agent: AgentIdentity) -> list[Job]:
        """End the leases of every other incarnation of this agent-runner."""
        return self._lose(
            attempt
            for attempt in self._live.values()
            if attempt.agent.name == agent.name and attempt.agent != agent
        )

    async def expire_leases(self) -> list[Job]:
        """End the leases whose time is over."""
        steady_us = self._clock.steady_us()
        return self._lose(
            attempt for attempt in self._live.values() if attempt.expire_us <= steady_us
        )

    async def extend_all_leases(self, lease_s: float) -> None:
        """Give each live lease a full term from here."""
        expire_us = expiry_us(self._clock, lease_s)
        for attempt in [*self._live.values()]:
            self._save_attempt(replace(attempt, expire_us=expire_us))

    async def wake_due(self, limit: int) -> NextMoments:
        """Let jobs be claimed whose moment has come."""
        due = [job for job in self._timed() if moment(job)[1] <= self._now_us(job)]
        for job in sorted(due, key=lambda job: (*moment(job), self._seqs[job.id]))[: max(limit, 0)]:
            woken = lifecycle.woken(job)
            self._jobs[job.id] = woken
            self._queue.moved(job, woken, self._seqs[job.id])
        if due:
            self._tell(QueueChange(claimable=True))
        return next_moments(self._timed())

    async def cap_backoffs(self) -> None:
        """Let no backoff last longer from here than it was to last in all."""
        for job in self._timed():
            steady, moment_us = moment(job)
            if steady:
                latest_us = self._clock.steady_us() + job.backoff_us
                self._jobs[job.id] = replace(job, ready_us=min(moment_us, latest_us))

    async def waits_on(self, job_id: str) -> Waits:
        """Tell what keeps a job from being claimed.

        Raises:
            JobNotFoundError: No such job.
        """
        job = await self.get(job_id)
        return waits_of(job, self._seqs[job_id], self._jobs, self._queue)

    async def newest_retry(self, job_id: str) -> Job | None:
        """Return the newest job that repeats this one."""
        retries = (job for job in reversed(self._jobs.values()) if job.retry_of == job_id)
        return next(retries, None)

    async def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            JobNotFoundError: No such job.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobNotFoundError(f"no job has the id {job_id!r}") from None

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of one job, oldest first."""
        return [*self._attempts.get(job_id, ())]

    async def events(self, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent]:
        """Return events after an id, oldest first; empty ``job_ids`` keeps all."""
        return self._events.after(after_id, limit, job_ids)

    async def last_event_id(self) -> int:
        """Return the id of the newest event; 0 if there is none."""
        return self._events.last_id

    async def count(self, state: JobState) -> int:
        """Return how many jobs are in a state."""
        return self._counts[state]

    def _accept(self, new: NewJob) -> None:
        self._by_seq.append(new.id)
        self._seqs[new.id] = len(self._by_seq)
        states = {job_id: self._jobs[job_id].state for job_id in new.spec.depends_on}
        job = lifecycle.submitted(new, states, self._clock.now_us())
        if not job.state.final:
            for job_id in new.spec.depends_on:
                self._dependents.setdefault(job_id, []).append(job.id)
        self._store_change(job)
        if job.ready_us is not None:
            self._tell(QueueChange(timed=True))

    def _job_at(self, seq: int) -> Job:
        return self._jobs[self._by_seq[seq - 1]]

    def _attempt(self, lease: LeaseRef) -> Attempt | None:
        attempts = self._attempts.get(lease.job_id, [])
        return attempts[lease.attempt - 1] if 0 < lease.attempt <= len(attempts) else None

    def _held(self, lease: LeaseRef) -> Attempt:
        attempt = self._attempt(lease)
        if attempt is None or not is_held(lease, attempt):
            raise lease_lost(lease)
        return attempt

    def _lose(self, attempts: Iterable[Attempt]) -> list[Job]:
        jobs = []
        for attempt in sorted(attempts, key=self._seq_of):
            job = self._jobs[attempt.job_id]
            lost, lost_attempt = lifecycle.lost(job, attempt, self._clock.now_us())
            self._save_attempt(lost_attempt)
            self._save(lost)
            jobs.append(lost)
        return jobs

    def _seq_of(self, attempt: Attempt) -> int:
        return self._seqs[attempt.job_id]

    def _save_attempt(self, attempt: Attempt) -> None:
        self._attempts[attempt.job_id][attempt.number - 1] = attempt
        if attempt.state.leased:
            self._live[attempt.job_id] = attempt
        else:
            self._live.pop(attempt.job_id)

    def _save(self, job: Job) -> None:
        """Store a job that has changed its state, and what follows from that for others."""
        self._store_change(job)
        moved: list[Job] = []
        ended = deque((job,) if job.state.final else ())
        while ended:
            for other in self._after_end_of(ended.popleft()):
                self._store_change(other)
                moved.append(other)
                if other.state.final:
                    ended.append(other)
        freed = job.spec.concurrency is not None and job.state is not JobState.RUNNING
        released = any(other.state is JobState.PENDING for other in moved)
        timed = any(other.ready_us is not None for other in (job, *moved))
        if moved or freed or timed:
            self._tell(QueueChange(jobs=tuple(moved), claimable=freed or released, timed=timed))

    def _after_end_of(self, ended: Job) -> list[Job]:
        waiting = (self._jobs[job_id] for job_id in self._dependents.get(ended.id, ()))
        return dependents_after(ended, waiting, self._jobs, self._clock.now_us())

    def _timed(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.ready_us is not None]

    def _now_us(self, job: Job) -> int:
        return self._clock.steady_us() if job.backoff_us else self._clock.now_us()

    def _tell(self, change: QueueChange) -> None:
        if self._listener is not None:
            self._listener(change)

    def _store_change(self, job: Job) -> None:
        before = self._jobs.get(job.id)
        if before is not None:
            self._counts[before.state] -= 1
        self._counts[job.state] += 1
        self._jobs[job.id] = job
        self._queue.moved(before, job, self._seqs[job.id])
        self._events.add(job, self._clock.now_us())

    # Last, because its name hides the built-in one from every annotation after it.
    async def list(
        self,
        states: Collection[JobState],
        page_size: int,
        page_token: str,
        *,
        labels: Mapping[str, str] | None = None,
        since_us: int = 0,
    ) -> JobPage:
        """Return a page of jobs, newest first; empty filters keep all.

        Raises:
            UsageError: The page token is not one of ours.
        """
        check_page_size(page_size)
        before = min(decode_page_token(page_token), len(self._by_seq) + 1)
        older = (self._job_at(seq) for seq in range(before - 1, 0, -1))
        kept = iter(filtered(older, states, labels or {}, since_us))
        jobs = tuple(islice(kept, page_size))
        more = next(kept, None) is not None
        return JobPage(
            jobs=jobs,
            next_page_token=encode_page_token(self._seqs[jobs[-1].id]) if more else "",
        )
