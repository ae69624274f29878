"""What the server knows of one start of an agent-runner. The store knows its leases; this knows its slots and stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agent_runner.job_spec import JobSpec
from daemon.jobs.models import AgentIdentity, AgentOffer, LeaseRef
from daemon.jobs.outside import does_without_container
from daemon.server.work_stream import WorkStream

LeaseKey = tuple[str, int]


@dataclass(slots=True, eq=False)
class AgentSession:
    """One incarnation, from its registration to that of the next one."""

    agent: AgentIdentity
    slots: int
    labels: Mapping[str, str]
    projects: frozenset[str] | None = None
    """Whose jobs it takes; None for those of every project."""
    tier: str = ""
    """Of the sandbox that its jobs get; empty if it did not say."""
    no_containers: str = ""
    """Why it takes only jobs that do without a container; empty if it takes all."""
    local_projects: frozenset[str] = frozenset()
    """Projects whose jobs do without one unless they ask for it."""
    stream: WorkStream | None = None
    draining: bool = False
    exhausted: bool = False
    """The last claim found nothing more, and nothing was queued since."""
    confirmed: bool = False
    """The store has confirmed what the last hello claimed to hold."""
    held: dict[LeaseKey, LeaseRef] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held over each claim, so that a new stream sees all that the last one claimed."""

    @property
    def offer(self) -> AgentOffer:
        """Return what it can take."""
        return AgentOffer(
            agent=self.agent,
            labels=self.labels,
            projects=self.projects,
            outside=self.local_projects if self.no_containers else None,
        )

    @property
    def claimable(self) -> int:
        """Return how many jobs to claim for it now."""
        return 0 if self.exhausted else self.free

    @property
    def free(self) -> int:
        """Return how many jobs it could take now."""
        return 0 if self.draining else max(0, self.slots - len(self.held))

    def serves(self, project: str) -> bool:
        """Tell whether it takes jobs of a project."""
        return self.projects is None or project in self.projects

    def has_place_for(self, spec: JobSpec) -> bool:
        """Tell whether it can make the sandbox of a job now, as far as it is known."""
        return not self.no_containers or does_without_container(spec, self.local_projects)

    def hold(self, leases: Iterable[LeaseRef]) -> None:
        """Count leases against the slots."""
        for lease in leases:
            self.held[lease.job_id, lease.attempt] = lease

    def release(self, key: LeaseKey) -> LeaseRef | None:
        """Free the slot of a lease, if it has one, and let the stream claim for it."""
        lease = self.held.pop(key, None)
        if lease is not None and self.stream is not None:
            self.stream.woken.set()
        return lease

    def stir(self) -> None:
        """Let the stream look at the queue again."""
        self.exhausted = False
        if self.stream is not None and self.claimable:
            self.stream.woken.set()
