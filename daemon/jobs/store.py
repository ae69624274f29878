"""The JobStore port: the one truth about jobs, attempts, leases and events.

Every method that changes something is atomic, is durable before it returns, and appends one event per change of
a job's state. Backends pass ``tests/contract/test_job_store_contract.py``. What a change *means* is decided in
``lifecycle``; a backend only finds rows, calls it, and writes what it says.

``then``, which some methods take, is called with the result on the event loop as soon as it is durable, in the order of
the changes, and before the method returns. A caller that is cancelled meanwhile takes back neither the change nor what
follows it. It must not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from agent_runner.outcome import Outcome, OutputFile
from daemon.jobs.models import (
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
from daemon.jobs.states import JobState
from daemon.tokens.store import TokenStore


class JobStore(Protocol):
    """Keeps jobs. One per server; called concurrently from its event loop."""

    @property
    def tokens(self) -> TokenStore:
        """Return the part that keeps tokens."""
        ...

    async def open(self) -> None:
        """Make the store usable, migrating it if it is older.

        Raises:
            StoreUnusableError: Damaged, not writable, or written by a newer version.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and let go. Idempotent."""
        ...

    def listen(self, listener: Callable[[QueueChange], None]) -> None:
        """Call ``listener`` for each change that brings about more than its caller is told; called once, after ``open``.

        It is called on the event loop, after the change is durable and before the method that made it returns. It must
        not raise. Jobs without dependents, group and delay never cause a call.
        """
        ...

    async def submit(
        self, jobs: Sequence[NewJob], then: Callable[[list[Job]], None] | None = None
    ) -> list[Job]:
        """Accept all jobs or none; called per submit. A known request id returns the job it made.

        A job with ``depends_on`` begins BLOCKED, PENDING if all of these have succeeded already, or FAILED if one has
        ended otherwise. One with a ``not_before_us`` to come waits for it.

        Raises:
            InvalidJobSpecError: A job depends on one that does not exist in its project.
            RequestIdReusedError: A request id is known with another payload, or stands twice in ``jobs`` with different payloads.
        """
        ...

    async def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Return those request ids that have made a job; called when a submit finds the queue full."""
        ...

    async def requested(self, request_id: str, payload_sha256: str) -> Job | None:
        """Return the job that a request id has made; None if it has made none. Called per retry with a request id.

        Raises:
            RequestIdReusedError: It has made one of another payload.
        """
        ...

    async def claim(
        self,
        offer: AgentOffer,
        limit: int,
        lease_s: float,
        then: Callable[[list[Claim]], None] | None = None,
    ) -> list[Claim]:
        """Give up to ``limit`` pending jobs to an agent-runner, best first.

        The specification of a job of a workflow holds what the ended jobs of it gave. Best is: higher priority, then the earlier submit.
        The project of the job must be one of the offer's, every label of it among the offer's, fewer jobs of its concurrency
        group must run than its limit, and it must not wait for a moment. Each claimed job is RUNNING with a new attempt and a fresh, unguessable lease token.
        """
        ...

    async def renew(
        self, agent: AgentIdentity, leases: Sequence[LeaseRef], lease_s: float
    ) -> Renewal:
        """Renew leases of one agent-runner; called per hello and every renew interval with all it holds.

        A renewal is also the proof that the attempt has arrived.
        """
        ...

    async def finish(
        self,
        lease: LeaseRef,
        outcome: Outcome,
        triggered: Sequence[NewJob] = (),
        then: Callable[[Job], None] | None = None,
    ) -> Job:
        """End an attempt and its job, or put the job back: if interrupted, or if ``retries`` has it tried again.

        If it ends the job, and not by a cancel, the jobs of ``triggered`` are accepted with it, all at once; each may
        depend on this job and on those before it. What the attempt gives to its workflow is kept with it; if another
        job gave another value to the same variable, the job has failed instead. Repeating it is harmless, and triggers nothing again.

        Raises:
            LeaseLostError: The lease is not held, and was not ended by this same call before.
        """
        ...

    async def give_back(self, leases: Sequence[LeaseRef], begun: Collection[LeaseRef]) -> list[Job]:
        """End attempts that their agent-runner does not have; called when a stream begins or ends.

        One that never arrived does not count and its job is next again. One that was ever renewed, or is among
        ``begun`` because it has written to its log, is lost. What is not held is left out. Returns the jobs after it.
        """
        ...

    async def describe_log(self, job_id: str, number: int, length: int, sha256: str) -> None:
        """Record what the log of an ended attempt came to be; called by its first reader if nobody reported it.

        Changes nothing if the attempt has not ended, has a hash already, or is not known.
        """
        ...

    async def check_lease(self, lease: LeaseRef) -> None:
        """Check that a lease is held.

        Raises:
            LeaseLostError: It is not.
        """
        ...

    async def held(self, agent: AgentIdentity) -> list[LeaseRef]:
        """Return the leases that one start of an agent-runner holds, the oldest job first; called per hello."""
        ...

    async def cancel(self, job_id: str) -> Job:
        """End a queued job, or mark a running one CANCELLING (harmless if it already is).

        Raises:
            JobNotFoundError: No such job.
            JobNotCancellableError: It has ended.
        """
        ...

    async def end_predecessors(self, agent: AgentIdentity) -> list[Job]:
        """End the leases of every other incarnation of this agent-runner; return the jobs after it."""
        ...

    async def expire_leases(self) -> list[Job]:
        """End the leases whose time is over; called every second. Return the jobs after it."""
        ...

    async def extend_all_leases(self, lease_s: float) -> None:
        """Give each live lease a full term from here; called once when a server starts."""
        ...

    async def wake_due(self, limit: int) -> NextMoments:
        """Let up to ``limit`` jobs be claimed whose moment has come, the longest due first; tell the moments that are next.

        Called when such a moment comes, and once when a server starts. A moment that is told may lie in the past: then
        there are more than ``limit``. A job whose moment has come is not claimed before this was called.
        """
        ...

    async def cap_backoffs(self) -> None:
        """Let no backoff last longer from here than it was to last in all; called once when a server starts.

        The steady clock of a new process begins at the wall clock, which may have jumped since the backoff began. So a
        restart after a jump backward makes a backoff at most begin anew, one after a jump forward at most ends it.
        """
        ...

    async def waits_on(self, job_id: str) -> Waits:
        """Tell what keeps a job from being claimed; called per request of a person.

        A BLOCKED job waits on ``dependencies`` only. A PENDING one may wait for a moment, on its group, and on the jobs
        ``ahead``; whether an agent-runner with its labels and a free slot is there, the store does not know. A job of
        any other state waits on nothing.

        Raises:
            JobNotFoundError: No such job.
        """
        ...

    async def newest_retry(self, job_id: str) -> Job | None:
        """Return the newest job whose ``retry_of`` is this id; called per retry of a job with failed dependencies."""
        ...

    async def children(self, job_id: str) -> Sequence[str]:
        """Return the ids of the jobs that this one triggered, the first one first; called per request of a person."""
        ...

    async def remove_ended(self, excess: Excess, spared: Collection[str], limit: int) -> Removed:
        """Remove ended jobs with their attempts, events and request ids; called once a minute until nothing is left to remove.

        The oldest are those that were submitted first. At most ``limit`` are removed, first the oldest of all as far as
        ``excess`` counts jobs or bytes, then the oldest of those that ended too long ago. It passes over: a job among ``spared``, one that a job which has not ended
        depends on, the newest job of all, and the job of the newest event. The logs of what is removed are listed by
        ``removed_logs`` from the same moment, so that a crash between the two loses neither.
        """
        ...

    async def removed_logs(self, limit: int) -> list[RemovedLog]:
        """Return up to ``limit`` removed jobs whose logs may still be there; called after each removal and at a start."""
        ...

    async def forget_removed_logs(self, job_ids: Collection[str]) -> None:
        """Forget removed jobs; called after their logs were deleted."""
        ...

    async def log_bytes(self) -> int:
        """Return how long the logs of all ended attempts are together; called once a minute."""
        ...

    async def last_removed_event_id(self) -> int:
        """Return the id of the newest event that was removed with its job; 0 if none was."""
        ...

    async def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            JobNotFoundError: No such job.
        """
        ...

    async def in_projects(self, job_ids: Collection[str], projects: Collection[str]) -> set[str]:
        """Return those of some jobs that are kept and of some projects; called per batch of events of a watcher that may not see all."""
        ...

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of one job, oldest first; empty if there are none or no such job."""
        ...

    async def artifacts(self, job_id: str, number: int) -> list[OutputFile]:
        """Return the outputs of one attempt, by name; empty if there are none, it has not ended, or no such attempt."""
        ...

    async def referenced(self, digests: Collection[str]) -> set[str]:
        """Return those contents that the output of a kept job has; called when others are to be deleted."""
        ...

    async def events(self, after_id: int, limit: int, job_ids: Collection[str]) -> list[JobEvent]:
        """Return events after an id, oldest first; empty ``job_ids`` keeps all."""
        ...

    async def last_event_id(self) -> int:
        """Return the id of the newest event; 0 if there is none."""
        ...

    async def count(self, state: JobState) -> int:
        """Return how many jobs are in a state."""
        ...

    async def list(  # noqa: PLR0913 - one for each filter
        self,
        states: Collection[JobState],
        page_size: int,
        page_token: str,
        *,
        labels: Mapping[str, str] | None = None,
        since_us: int = 0,
        projects: Collection[str] | None = None,
    ) -> JobPage:
        """Return a page of jobs, newest first.

        Args:
            states: Keeps jobs in one of them; empty keeps all.
            page_size: How many jobs at most.
            page_token: That of an earlier page; empty for the first one.
            labels: Keeps jobs that have all of them.
            since_us: Keeps jobs with this ``create_us`` or a later one.
            projects: Keeps jobs of one of them; None keeps all.

        Raises:
            UsageError: The page token is not one of ours, or the page size is below 1.
        """
        ...
