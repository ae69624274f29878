"""The values that the queue is made of. Frozen; a change makes a new value. Times are microseconds since the epoch.

Named tuples: they are made, hashed and defined several times as quickly as frozen dataclasses. Their fields are given by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, LogSummary, SandboxRecord, SourceRecord
from daemon.jobs.states import JobState

MAX_LOSSES = 3
"""How often a job is run again after its agent-runner died, before it is FAILED/LOST (DESIGN §6)."""

MAX_TRIGGERED = 100
"""Jobs that one job may trigger."""
MAX_CHAIN_DEPTH = 10
"""Jobs that may trigger each other in a row."""


class AgentIdentity(NamedTuple):
    """One start of one agent-runner."""

    name: str
    incarnation: str


class LeaseRef(NamedTuple):
    """The exclusive right to one attempt; every write of an attempt is checked against it."""

    job_id: str
    attempt: int
    lease_token: str


class NewJob(NamedTuple):
    """A job that passed validation and is to be stored."""

    id: str
    spec: JobSpec
    request_id: str | None
    payload_sha256: str
    """Tells a repeated submit from a re-used request id."""
    retry_of: str = ""
    """Id of the job that this one repeats."""
    parent_id: str = ""
    """Id of the job that triggered this one."""
    depth: int = 0
    """How many jobs triggered each other up to this one."""


class Job(NamedTuple):
    """An accepted job without its attempts."""

    id: str
    spec: JobSpec
    state: JobState
    create_us: int
    attempt: int = 0
    """How many attempts began."""
    losses: int = 0
    """How many of them ended because their agent-runner died."""
    failures: int = 0
    """How many of them failed by themselves and were tried again."""
    ready_us: int | None = None
    """Of a PENDING job that waits for a moment: that moment. None as soon as the job may be claimed."""
    backoff_us: int = 0
    """How long that wait is in all, if ``ready_us`` ends a backoff and so is on the steady clock; 0 on the wall clock."""
    retry_of: str = ""
    """Id of the job that this one repeats."""
    parent_id: str = ""
    """Id of the job that triggered this one."""
    depth: int = 0
    """How many jobs triggered each other up to this one; 0 for one that was submitted."""
    end_reason: EndReason | None = None
    exit_code: int | None = None
    message: str = ""
    start_us: int | None = None
    end_us: int | None = None
    sandbox: SandboxRecord = SandboxRecord()


class Attempt(NamedTuple):
    """One try at a job."""

    job_id: str
    number: int
    state: JobState
    agent: AgentIdentity
    lease_token: str
    start_us: int
    expire_us: int
    """When the lease ends unless it is renewed; on the steady clock."""
    renew_us: int | None = None
    """When its agent-runner last named it, in a hello or a renewal."""
    end_us: int | None = None
    end_reason: EndReason | None = None
    exit_code: int | None = None
    message: str = ""
    sandbox: SandboxRecord = SandboxRecord()
    source: SourceRecord = SourceRecord()
    log: LogSummary = LogSummary()
    outputs_error: str = ""
    """Which outputs are not kept though the job asked for them, and why."""

    @property
    def lease(self) -> LeaseRef:
        """Return the right that its agent-runner holds."""
        return LeaseRef(job_id=self.job_id, attempt=self.number, lease_token=self.lease_token)


class Claim(NamedTuple):
    """An attempt that was just given to an agent-runner."""

    lease: LeaseRef
    spec: JobSpec


class JobEvent(NamedTuple):
    """One change of a job, numbered by the store without gaps in what it keeps."""

    id: int
    job_id: str
    state: JobState
    attempt: int
    time_us: int
    end_reason: EndReason | None = None
    exit_code: int | None = None


class Renewal(NamedTuple):
    """The answer to a renewal of leases."""

    lost: tuple[LeaseRef, ...] = ()
    """Not held any more: kill and do not report."""
    cancelling: tuple[LeaseRef, ...] = ()
    """Held, but the job was cancelled: stop and report."""


class JobPage(NamedTuple):
    """A page of jobs, newest first."""

    jobs: tuple[Job, ...]
    next_page_token: str = ""


class AgentOffer(NamedTuple):
    """What an agent-runner can take when it claims."""

    agent: AgentIdentity
    labels: Mapping[str, str] = MappingProxyType({})
    projects: frozenset[str] | None = None
    """Whose jobs it takes; None for those of every project."""
    outside: frozenset[str] | None = None
    """Set while it takes only jobs that do without a container: the projects of which all do that ask for none."""


class NextMoments(NamedTuple):
    """When the next waiting job may start, on each of the two clocks; None where none waits."""

    wall_us: int | None = None
    steady_us: int | None = None


class Waits(NamedTuple):
    """What keeps a job from being claimed. All of it is empty for one that runs or has ended."""

    dependencies: tuple[str, ...] = ()
    """Jobs that it depends on and that have not ended, in the order of its ``depends_on``."""
    ready_us: int | None = None
    """The moment that it waits for, as ``Job.ready_us``."""
    group: str = ""
    """Its concurrency group, if that has no room for it now."""
    group_holders: tuple[str, ...] = ()
    """The jobs of that group that run, the oldest first."""
    ahead: int = 0
    """How many jobs with just the same labels may be claimed now and come before it; of a group, only its next job counts."""


class QueueChange(NamedTuple):
    """What a change brought about beside what its caller asked for."""

    jobs: tuple[Job, ...] = ()
    """Jobs whose state changed because another one ended, in the order of the changes."""
    claimable: bool = False
    """A job may be claimed that could not be before, and that its caller does not hear of."""
    timed: bool = False
    """A job began to wait for a moment."""


class Excess(NamedTuple):
    """What is to be removed of the jobs that have ended: whatever breaks any of these bounds."""

    before_us: int = 0
    """Those that ended before this moment."""
    jobs: int = 0
    """So many of the oldest."""
    log_bytes: int = 0
    """So many of the oldest that their logs come to this."""


class Removed(NamedTuple):
    """What was removed in one step."""

    jobs: int = 0
    log_bytes: int = 0


class RemovedLog(NamedTuple):
    """The logs of a removed job, which may still be on the disk."""

    job_id: str
    attempts: int
