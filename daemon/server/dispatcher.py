"""Brings queued jobs to free slots. Nothing polls: a submit, a free slot, a hello or a requeue wakes a stream.

A claim may lose its stream on the way. What then happens to its attempts:

- never handed to gRPC: given back at once when the stream ends;
- handed to gRPC, perhaps not received: the next hello of the same agent-runner names what it has, and what the store
  says it holds beyond that is given back; a hello of its next start ends all its leases; if neither comes, they expire.

What is given back is pending again. It does not count if it never arrived; an attempt that its agent-runner has named
once, or that has written to its log, arrived and is a loss.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent_runner.outcome import Outcome
from daemon.errors import AgentReplacedError, DaemonError, ShuttingDownError, UsageError
from daemon.jobs.log_files import LogFiles
from daemon.jobs.models import AgentIdentity, Claim, Job, LeaseRef, NewJob
from daemon.jobs.store import JobStore
from daemon.server.agent_session import AgentSession
from daemon.server.completions import Completions
from daemon.server.log_seals import seal
from daemon.server.signals import Signals
from daemon.server.work_stream import WorkStream
from runner.v1 import agent_service_pb2 as pb

logger = logging.getLogger(__name__)

REMEMBERED_STARTS = 64
"""How many replaced starts of one agent-runner are remembered, so that a revived one cannot take over again."""
MAX_WHY_CHARS = 1000
MAX_PROJECTS = 1000
"""Of an offer."""


class Dispatcher:
    """Knows every connected agent-runner. One per server; used on its event loop."""

    def __init__(
        self,
        *,
        store: JobStore,
        logs: LogFiles,
        signals: Signals,
        completions: Completions,
        lease_s: float,
    ) -> None:
        self._store = store
        self._logs = logs
        self._signals = signals
        self._completions = completions
        self._lease_s = lease_s
        self._sessions: dict[str, AgentSession] = {}
        self._replaced: defaultdict[str, deque[str]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED_STARTS)
        )
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self.leased = asyncio.Event()
        """Set when a lease was given; the reaper clears it."""

    async def register(
        self,
        agent: AgentIdentity,
        slots: int,
        labels: Mapping[str, str],
        projects: frozenset[str] | None,
    ) -> None:
        """Make a start of an agent-runner known; the first time, end the leases of the starts before it.

        Raises:
            AgentReplacedError: A later start has registered since.
        """
        self._check_not_replaced(agent)
        old = self._sessions.get(agent.name)
        if old is not None and old.agent == agent:
            old.slots, old.labels, old.projects = slots, labels, projects
            old.stir()
            return
        self._sessions[agent.name] = AgentSession(agent, slots, labels, projects)
        if old is not None:
            await self._replace(old)
        ended = await self._store.end_predecessors(agent)
        await self._announce(ended)
        if ended:
            logger.warning(
                "the attempts of an earlier start were ended",
                extra={"action": "predecessor_ended", "agent": agent.name, "attempts": len(ended)},
            )
            self.stir()

    def session(self, agent: AgentIdentity) -> AgentSession:
        """Return the session of a registered start.

        Raises:
            AgentReplacedError: A later start has registered since.
            UsageError: It has not registered with this server.
        """
        self._check_not_replaced(agent)
        session = self._sessions.get(agent.name)
        if session is None or session.agent != agent:
            raise UsageError(f"agent-runner {agent.name} must call RegisterAgent before Work")
        return session

    def sessions(self) -> list[AgentSession]:
        """Return the newest start of every agent-runner that has registered, connected or not."""
        return list(self._sessions.values())

    async def attach(
        self,
        session: AgentSession,
        stream: WorkStream,
        active: Sequence[LeaseRef],
        hello: pb.WorkHello,
    ) -> None:
        """Make a stream the one of its session and settle who holds what; called per hello."""
        if stream.ended:
            return  # its client left before this began
        if session.stream is not None:
            session.stream.end()
        session.stream = stream
        self._disconnected.clear()
        async with session.lock:
            if session.stream is not stream:
                return
            # Before the first await, so that a finish that comes meanwhile frees its slot for good.
            session.confirmed = False
            session.held.clear()
            session.hold(active)
            session.draining = hello.draining
            session.looks_ahead = hello.look_ahead
            self.limit(session, hello.offer)
            named = set(active)
            held = await self._store.held(session.agent)
            await self._give_back([lease for lease in held if lease not in named])
            stream.welcome()
            await self.renew(session, stream, active)
            session.confirmed = True

    def detach(self, session: AgentSession, stream: WorkStream) -> None:
        """Forget a stream that has ended; called once per attach. Its agent-runner keeps its leases."""
        stream.end()
        if session.stream is stream:
            session.stream = None
        unsent = stream.take_unsent()
        for lease in unsent:
            session.release((lease.job_id, lease.attempt))
        self._completions.start(self._give_back(unsent))
        if not any(other.stream for other in self._sessions.values()):
            self._disconnected.set()

    async def next(self, session: AgentSession, stream: WorkStream) -> pb.WorkResponse | None:
        """Wait for what to send next on a stream, claiming for free slots; None at its end.

        Raises:
            DaemonError: The stream ended for this reason.
        """
        while True:
            response = stream.next()
            if response is not None:
                return response
            if stream.ended:
                if stream.error is not None:
                    raise stream.error
                return None
            stream.woken.clear()
            # Whoever claims for it already wakes it if there is more to claim.
            if session.claimable and not session.lock.locked():
                await self._completions.run(self._claim(session, stream))
            else:
                await stream.woken.wait()

    async def renew(
        self, session: AgentSession, stream: WorkStream, leases: Sequence[LeaseRef]
    ) -> None:
        """Renew leases and say which are lost and which are to be cancelled; called per renewal."""
        if not leases:
            return
        self.leased.set()
        renewal = await self._store.renew(session.agent, leases, self._lease_s)
        for lease in renewal.lost:
            session.release((lease.job_id, lease.attempt))
            stream.lease_lost(lease)
        for lease in renewal.cancelling:
            stream.cancel(lease)

    def drain(self, session: AgentSession) -> None:
        """Give a session nothing more."""
        session.draining = True

    def limit(self, session: AgentSession, offer: pb.WorkOffer) -> None:
        """Give a session from now on what it offers to take."""
        session.no_containers = offer.no_containers[:MAX_WHY_CHARS]
        session.local_projects = frozenset(offer.local_projects[:MAX_PROJECTS])
        session.stir()

    async def submit(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Store jobs; free slots claim right behind it, so that both share one commit. Raises what the store raises.

        A caller that is cancelled meanwhile leaves jobs that are brought to free slots all the same.
        """
        for session, stream in self._free(jobs):
            # Runs when this task waits for the first time, so it comes behind the submit in the same transaction.
            self._begin_claim(session, stream)
        accepted = await self._store.submit(jobs, self._submitted)
        await asyncio.sleep(0)  # what was claimed behind it goes out before the answer
        return accepted

    def stir(self) -> None:
        """Let every free slot look at the queue; called after each requeue, and a submit that left something."""
        for session in self._sessions.values():
            session.stir()

    def holds(self, lease: LeaseRef) -> bool:
        """Tell whether a lease is surely held; if not, only the store knows."""
        key = (lease.job_id, lease.attempt)
        return any(
            session.confirmed and session.held.get(key) == lease
            for session in self._sessions.values()
        )

    def renews(self, lease: LeaseRef) -> bool:
        """Tell whether an open Work stream has a lease."""
        key = (lease.job_id, lease.attempt)
        return any(
            session.stream is not None and session.held.get(key) == lease
            for session in self._sessions.values()
        )

    def finished(self, lease: LeaseRef, outcome: Outcome) -> None:
        """Free the slot of an attempt that its agent-runner has ended, and claim for it behind what is begun in this turn of the loop.

        One that was interrupted says that its agent-runner is leaving, whether or not its ``WorkDrain`` has come:
        it gets nothing more until its next hello, or the job would come back to it again and again. One that was
        returned has only waited for a slot.
        """
        key = (lease.job_id, lease.attempt)
        for session in self._sessions.values():
            if session.held.get(key) == lease:
                if not outcome.interrupted:
                    session.pace.ended()
                elif outcome.returned:
                    session.pace.stalled()
                else:
                    session.draining = True
                session.release(key)
                if session.stream is not None:
                    self._begin_claim(session, session.stream)

    def cancel(self, job: Job) -> None:
        """Tell the agent-runner of a job that was cancelled; without a stream its next hello does it."""
        for session in self._sessions.values():
            lease = session.held.get((job.id, job.attempt))
            if lease is not None and session.stream is not None:
                session.stream.cancel(lease)

    async def lost(self, jobs: Sequence[Job]) -> None:
        """Tell the agent-runners of attempts whose leases have ended, and bring the jobs to others."""
        await self._announce(jobs)
        for job in jobs:
            for session in self._sessions.values():
                lease = session.release((job.id, job.attempt))
                if lease is not None and session.stream is not None:
                    session.stream.lease_lost(lease)
        self.stir()

    def stop(self) -> None:
        """End every stream."""
        for session in self._sessions.values():
            if session.stream is not None:
                session.stream.end(ShuttingDownError("the job server is stopping"))

    async def wait_disconnected(self) -> None:
        """Wait until no agent-runner has a stream."""
        await self._disconnected.wait()

    def _submitted(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._signals.job_changed(job.id)
        self.stir()

    def _free(self, jobs: Sequence[NewJob]) -> Iterator[tuple[AgentSession, WorkStream]]:
        """Yield those who could take new jobs at once, most free slots first."""
        left = len(jobs)
        projects = {job.spec.project for job in jobs}
        for session in sorted(self._sessions.values(), key=lambda session: -session.free):
            stream, free = session.stream, session.free
            if left <= 0:
                return
            if stream is None or not free or session.lock.locked() or session.no_containers:
                continue
            if any(map(session.serves, projects)):
                # What it last found says nothing about what comes now.
                session.exhausted = False
                left -= free
                yield session, stream

    def _begin_claim(self, session: AgentSession, stream: WorkStream) -> None:
        """Claim in the next turn of the loop, once for all who ask for it in this one."""
        if session.room and not session.claiming:
            session.claiming = True
            self._completions.start(self._claim_behind(session, stream))

    async def _claim_behind(self, session: AgentSession, stream: WorkStream) -> None:
        session.claiming = False
        try:
            await self._claim(session, stream)
        except Exception as error:
            session.stir()  # its stream tries again, and tells if that fails too
            if not isinstance(error, DaemonError):
                raise

    async def _claim(self, session: AgentSession, stream: WorkStream) -> None:
        """Claim what a session can take and have it sent."""
        try:
            async with session.lock:
                if session.stream is stream and session.room:
                    await self._claim_locked(session, stream)
        finally:
            if session.claimable:
                stream.woken.set()

    async def _claim_locked(self, session: AgentSession, stream: WorkStream) -> None:
        limit, offer = session.room, session.offer
        unwanted: list[LeaseRef] = []

        def claimed(claims: Sequence[Claim]) -> None:
            leases = [claim.lease for claim in claims]
            for lease in leases:
                self.leased.set()
                self._signals.job_changed(lease.job_id)
            if session.stream is not stream or session.draining or session.offer != offer:
                unwanted.extend(leases)
                return
            # What was queued before the claim, it has seen; what was queued after it resets this afterwards.
            session.exhausted = len(claims) < limit
            session.hold(leases)
            stream.assign(claims)

        await self._store.claim(offer, limit, self._lease_s, claimed)
        await self._give_back(unwanted)

    def _check_not_replaced(self, agent: AgentIdentity) -> None:
        if agent.name in self._replaced and agent.incarnation in self._replaced[agent.name]:
            raise _replaced(agent)

    async def _replace(self, old: AgentSession) -> None:
        self._replaced[old.agent.name].append(old.agent.incarnation)
        if old.stream is not None:
            for lease in old.held.values():
                old.stream.lease_lost(lease)
            old.stream.end(_replaced(old.agent))
            old.stream = None
        async with old.lock:
            pass  # A claim under way gives its attempts back; nothing is claimed for it after that.

    async def _announce(self, jobs: Iterable[Job]) -> None:
        """Tell that the last attempts of jobs have ended without a report."""
        for job in jobs:
            await seal(self._logs, job.id, job.attempt)
            self._logs.close_attempt(job.id, job.attempt)
            self._signals.job_changed(job.id)

    async def _give_back(self, leases: Sequence[LeaseRef]) -> None:
        if not leases:
            return
        for lease in leases:
            await seal(self._logs, lease.job_id, lease.attempt)
        begun = {lease for lease in leases if self._logs.length(lease.job_id, lease.attempt)}
        jobs = await self._store.give_back(leases, begun)
        await self._announce(jobs)
        for job in jobs:
            logger.info(
                "an attempt was given back",
                extra={
                    "action": "attempt_given_back",
                    "job_id": job.id,
                    "attempt": job.attempt,
                    "losses": job.losses,
                },
            )
        if jobs:
            self.stir()


def _replaced(agent: AgentIdentity) -> AgentReplacedError:
    return AgentReplacedError(
        f"a later start of agent-runner {agent.name} has taken over: stop this one"
    )
