"""The job store that forgets: the behaviour of the SQLite store in dictionaries, for throw-away servers and tests.

No method waits for anything, so each one is atomic on the event loop without a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from agent_runner.outcome import Outcome, OutputFile
from daemon.errors import JobNotFoundError
from daemon.jobs import lifecycle
from daemon.jobs.dependencies import check_known
from daemon.jobs.leases import expiry_us, grant, is_held
from daemon.jobs.memory_jobs import MemoryJobs
from daemon.jobs.memory_views import (
    filtered,
    log_bytes_of,
    moment,
    next_moments,
    waits_of,
)
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
from daemon.jobs.page_tokens import check_page_size, decode_page_token, encode_page_token
from daemon.jobs.queue_keys import is_of
from daemon.jobs.request_ids import check_payload
from daemon.jobs.states import JobState
from daemon.jobs.workflows import with_vars


class MemoryJobStore(MemoryJobs):
    """A ``JobStore`` whose jobs end with the process."""

    async def open(self) -> None:
        """Do nothing: it is usable from the start."""

    async def close(self) -> None:
        """Do nothing: there is nothing to let go."""

    async def submit(
        self, jobs: Sequence[NewJob], then: Callable[[list[Job]], None] | None = None
    ) -> list[Job]:
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
                check_payload(new.request_id, new.payload_sha256, first.payload_sha256)
                continue
            if new.id in self._jobs or new.id in accepted:
                raise RuntimeError(f"job id {new.id} is already taken")
            project = {new.spec.project}
            known = {
                job_id
                for job_id in new.spec.depends_on
                if (other := self._jobs.get(job_id) or accepted.get(job_id))
                and is_of(other.spec, project)
            }
            check_known(new.spec.depends_on, known.__contains__)
            accepted[new.id] = new
            if new.request_id is not None:
                requests[new.request_id] = new
        self._requests = requests
        for new in accepted.values():
            self._accept(new)
        ids = (new.id if new.request_id is None else requests[new.request_id].id for new in jobs)
        submitted = [self._jobs[job_id] for job_id in ids]
        if then is not None:
            then(submitted)
        return submitted

    async def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Return those request ids that have made a job."""
        return {request_id for request_id in request_ids if request_id in self._requests}

    async def requested(self, request_id: str, payload_sha256: str) -> Job | None:
        """Return the job that a request id has made; None if it has made none.

        Raises:
            RequestIdReusedError: It has made one of another payload.
        """
        first = self._requests.get(request_id)
        if first is None:
            return None
        check_payload(request_id, payload_sha256, first.payload_sha256)
        return self._jobs[first.id]

    async def claim(
        self,
        offer: AgentOffer,
        limit: int,
        lease_s: float,
        then: Callable[[list[Claim]], None] | None = None,
    ) -> list[Claim]:
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
            spec = with_vars(job.spec, partial(self._workflow_outputs, job.spec.project))
            claims.append(Claim(lease=attempt.lease, spec=spec))

        self._queue.take(offer, start, limit)
        if then is not None:
            then(claims)
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
            self._save_attempt(attempt._replace(expire_us=expire_us, renew_us=self._clock.now_us()))
            if self._jobs[lease.job_id].state is JobState.CANCELLING:
                cancelling.append(lease)
        return Renewal(lost=tuple(lost), cancelling=tuple(cancelling))

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
        job = self._finish(lease, outcome, triggered)
        if then is not None:
            then(job)
        return job

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
            attempts[number - 1] = attempt._replace(log=log)

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
            self._save_attempt(attempt._replace(expire_us=expire_us))

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
                self._jobs[job.id] = job._replace(ready_us=min(moment_us, latest_us))

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

    async def children(self, job_id: str) -> Sequence[str]:
        """Return the ids of the jobs that this one triggered."""
        return [job.id for job in self._jobs.values() if job.parent_id == job_id][:MAX_TRIGGERED]

    async def remove_ended(self, excess: Excess, spared: Collection[str], limit: int) -> Removed:
        """Remove up to ``limit`` ended jobs with their attempts and events, the oldest first."""
        jobs = log_bytes = 0
        for job in self._removable(spared):
            over = jobs < excess.jobs or log_bytes < excess.log_bytes
            if jobs < limit and (over or (job.end_us or 0) < excess.before_us):
                jobs += 1
                log_bytes += log_bytes_of(self._attempts.get(job.id, ()))
                log_bytes += sum(file.size for file in self._outputs_of(job.id))
                self._remove(job)
        return Removed(jobs=jobs, log_bytes=log_bytes)

    async def removed_logs(self, limit: int) -> list[RemovedLog]:
        """Return removed jobs whose logs were not forgotten yet."""
        removed = [
            RemovedLog(job_id=job_id, attempts=count)
            for job_id, count in sorted(self._removed_logs.items())
        ]
        return removed[:limit]

    async def forget_removed_logs(self, job_ids: Collection[str]) -> None:
        """Forget removed jobs whose logs are gone."""
        for job_id in job_ids:
            self._removed_logs.pop(job_id, None)

    async def log_bytes(self) -> int:
        """Return how long the logs of all ended attempts are together."""
        outputs = sum(file.size for files in self._artifacts.values() for file in files)
        return sum(map(log_bytes_of, self._attempts.values())) + outputs

    async def last_removed_event_id(self) -> int:
        """Return the id of the newest event that was removed with its job."""
        return self._events.last_removed_id

    async def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            JobNotFoundError: No such job.
        """
        try:
            return self._jobs[job_id]
        except KeyError:
            raise JobNotFoundError(f"no job has the id {job_id!r}") from None

    async def in_projects(self, job_ids: Collection[str], projects: Collection[str]) -> set[str]:
        """Return those of some jobs that are of some projects."""
        found = (self._jobs.get(job_id) for job_id in job_ids)
        return {job.id for job in found if job is not None and is_of(job.spec, projects)}

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of one job, oldest first."""
        return [*self._attempts.get(job_id, ())]

    async def artifacts(self, job_id: str, number: int) -> list[OutputFile]:
        """Return the outputs of one attempt, by name."""
        return list(self._artifacts.get((job_id, number), ()))

    async def referenced(self, digests: Collection[str]) -> set[str]:
        """Return those contents that an output has."""
        files = (file for kept in self._artifacts.values() for file in kept)
        return {file.sha256 for file in files} & {*digests}

    async def events(self, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent]:
        """Return events after an id, oldest first; empty ``job_ids`` keeps all."""
        return self._events.after(after_id, limit, job_ids)

    async def last_event_id(self) -> int:
        """Return the id of the newest event; 0 if there is none."""
        return self._events.last_id

    async def count(self, state: JobState) -> int:
        """Return how many jobs are in a state."""
        return self._counts[state]

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
        check_page_size(page_size)
        before = min(decode_page_token(page_token), len(self._by_seq) + 1)
        found = (self._job_at(seq) for seq in range(before - 1, 0, -1))
        older = (job for job in found if job is not None and is_of(job.spec, projects))
        kept = iter(filtered(older, states, labels or {}, since_us))
        jobs = tuple(islice(kept, page_size))
        more = next(kept, None) is not None
        return JobPage(
            jobs=jobs,
            next_page_token=encode_page_token(self._seqs[jobs[-1].id]) if more else "",
        )
