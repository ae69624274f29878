"""What the server knows of one start of an agent-runner. The store knows its leases; this knows its slots and stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from agent_runner.job_spec import JobSpec
from daemon.jobs.models import AgentIdentity, AgentOffer, LeaseRef
from daemon.jobs.outside import does_without_container
from daemon.server.pace import Pace
from daemon.server.work_stream import WorkStream

LeaseKey = tuple[str, int]


class AgentSession:
    """One incarnation, from its registration to that of the next one."""

    def __init__(
        self,
        agent: AgentIdentity,
        slots: int,
        labels: Mapping[str, str],
        projects: frozenset[str] | None = None,
    ) -> None:
        self.agent = agent
        self.slots = slots
        self.labels = labels
        self.projects = projects
        """Whose jobs it takes; None for those of every project."""
        self.tier = ""
        """Of the sandbox that its jobs get; empty if it did not say."""
        self.no_containers = ""
        """Why it takes only jobs that do without a container; empty if it takes all."""
        self.local_projects: frozenset[str] = frozenset()
        """Projects whose jobs do without one unless they ask for it."""
        self.stream: WorkStream | None = None
        self.draining = False
        self.looks_ahead = False
        """It can be given attempts that wait for a slot; see ``Pace``."""
        self.pace = Pace()
        self.exhausted = False
        """The last claim found nothing more, and nothing was queued since."""
        self.claiming = False
        """A claim has begun and not looked at the free slots yet."""
        self.confirmed = False
        """The store has confirmed what the last hello claimed to hold."""
        self.held: dict[LeaseKey, LeaseRef] = {}
        self.lock = asyncio.Lock()
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
        """Return how many free slots it is to be asked for now."""
        return 0 if self.exhausted else self.free

    @property
    def room(self) -> int:
        """Return how many jobs to claim for it when it is asked: for its free slots, and ahead of them."""
        if self.exhausted or self.draining:
            return 0
        ahead = self.pace.ahead(self.slots) if self.looks_ahead else 0
        return max(0, self.slots + ahead - len(self.held))

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
        """Free the slot of a lease, if it has one; the caller has something claimed for it."""
        return self.held.pop(key, None)

    def stir(self) -> None:
        """Let the stream look at the queue again."""
        self.exhausted = False
        if self.stream is not None and self.claimable:
            self.stream.woken.set()
