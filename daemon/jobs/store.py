"""The JobStore port: the one truth about jobs, attempts, leases and events.

Every method that changes something is atomic, is durable before it returns, and appends one event per change of
a job's state. Backends pass ``tests/contract/test_job_store_contract.py``. What a change *means* is decided in
``lifecycle``; a backend only finds rows, calls it, and writes what it says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from agent_runner.outcome import Outcome
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
    Renewal,
)
from daemon.jobs.states import JobState


class JobStore(Protocol):
    """Keeps jobs. One per server; called concurrently from its event loop."""

    async def open(self) -> None:
        """Make the store usable, migrating it if it is older.

        Raises:
            StoreUnusableError: Damaged, not writable, or written by a newer version.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted and let go. Idempotent."""
        ...

    async def submit(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Accept all jobs or none; called per submit. A known request id returns the job it made.

        Raises:
            RequestIdReusedError: A request id is known with another payload, or stands twice in ``jobs`` with different payloads.
        """
        ...

    async def known_requests(self, request_ids: Collection[str]) -> set[str]:
        """Return those request ids that have made a job; called when a submit finds the queue full."""
        ...

    async def claim(self, offer: AgentOffer, limit: int, lease_s: float) -> list[Claim]:
        """Give up to ``limit`` pending jobs to an agent-runner, best first.

        Best is: higher priority, then the earlier submit. Every label of the job must be among the
        offer's. Each claimed job is RUNNING with a new attempt and a fresh, unguessable lease token.
        """
        ...

    async def renew(
        self, agent: AgentIdentity, leases: Sequence[LeaseRef], lease_s: float
    ) -> Renewal:
        """Renew leases of one agent-runner; called per hello and every renew interval with all it holds.

        A renewal is also the proof that the attempt has arrived.
        """
        ...

    async def finish(self, lease: LeaseRef, outcome: Outcome) -> Job:
        """End an attempt and its job (or put the job back, if interrupted). Repeating it is harmless.

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

    async def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            JobNotFoundError: No such job.
        """
        ...

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return the attempts of one job, oldest first; empty if there are none or no such job."""
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

    async def list(self, states: Collection[JobState], page_size: int, page_token: str) -> JobPage:
        """Return a page of jobs, newest first; empty ``states`` keeps all.

        Raises:
            UsageError: The page token is not one of ours, or the page size is below 1.
        """
        ...
