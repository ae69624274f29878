"""What a queued job waits on, in words: pure functions of what the store and the sessions say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.jobs.models import Job, Waits
from daemon.server.agent_session import AgentSession
from daemon.server.words import count_of, moment, named_jobs, pairs
from sandbox.base import Tier

AGENT, SLOT, ENGINE = "agent", "slot", "engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that a job waits on; the fields are those of ``JobWait``."""

    kind: str
    text: str
    job_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """A job that holds a slot or a place, and since when."""

    job_id: str
    name: str
    start_us: int | None


def store_waits(waits: Waits, ready_us: int | None, limit: int) -> list[Wait]:
    """Return what the store knows: jobs, a moment, a group.

    Args:
        waits: As the store has it.
        ready_us: The moment that it waits for, on the wall clock.
        limit: How many of its group may run at once, as the job asks.
    """
    found = []
    if waits.dependencies:
        text = f"depends on {named_jobs(waits.dependencies)}, which must succeed first"
        found.append(Wait(kind="dependency", text=text, job_ids=waits.dependencies))
    if ready_us is not None:
        found.append(Wait(kind="time", text=f"may not start before {moment(ready_us)}"))
    if waits.group:
        text = (
            f"concurrency group {waits.group} has no room: {len(waits.group_holders)} of {limit} run "
            f"({named_jobs(waits.group_holders)})"
            if waits.group_holders
            else f"concurrency group {waits.group} has no room: jobs of it come first"
        )
        found.append(Wait(kind="group", text=text, job_ids=waits.group_holders))
    return found


def place_waits(job: Job, sessions: Sequence[AgentSession]) -> list[Wait]:
    """Return why no agent-runner could take the job even with a free slot; empty if one can."""
    connected = [session for session in sessions if session.stream is not None]
    if not connected:
        known = ", ".join(sorted(session.agent.name for session in sessions))
        text = "no agent-runner is connected" + (f" (known: {known})" if known else "")
        return [Wait(kind=AGENT, text=text)]
    taking = [session for session in connected if not session.draining]
    if not taking:
        text = f"{_names(connected)} takes nothing new: it is about to stop"
        return [Wait(kind=AGENT, text=text)]
    if not any(fits(job, session) for session in taking):
        return [Wait(kind="label", text=_label_text(job, taking))]
    fitting = [session for session in taking if fits(job, session)]
    if not any(session.has_place_for(job.spec) for session in fitting):
        text = f"{_names(fitting)} can make no container now: {fitting[0].no_containers}"
        return [Wait(kind=ENGINE, text=text)]
    return _tier_waits(job, fitting)


def fits(job: Job, session: AgentSession) -> bool:
    """Tell whether an agent-runner takes jobs of a job's project and offers all its labels."""
    return session.serves(job.spec.project) and job.spec.labels.items() <= session.labels.items()


def slot_wait(sessions: Sequence[AgentSession], busy: Sequence[Holding], ahead: int) -> Wait | None:
    """Return the wait for a slot of the agent-runners that could take the job; None if one is free and it is next."""
    slots = sum(session.slots for session in sessions)
    free = sum(max(0, session.slots - len(session.held)) for session in sessions)
    queue = f"{count_of(ahead, 'job')} before it in the queue"
    if free:
        if not ahead:
            return None
        return Wait(kind=SLOT, text=f"{free} of {count_of(slots, 'slot')} free, {queue}")
    since = max((one.start_us for one in busy if one.start_us is not None), default=None)
    text = f"no free slot: {'all ' if slots > 1 else ''}{count_of(slots, 'slot')} of {_names(sessions)} busy"
    if since is not None:
        text += f" since {moment(since)}"
    holders = tuple(one.job_id for one in busy)
    if holders:
        text += f" ({named_jobs([f'{one.job_id} {one.name}' for one in busy])})"
    return Wait(kind=SLOT, text=f"{text}; {queue}", job_ids=holders)


def _tier_waits(job: Job, fitting: Sequence[AgentSession]) -> list[Wait]:
    # A container is above every tier, whatever other jobs get there.
    if job.spec.sandbox.kind == "container":
        return []
    wanted = Tier.parse(job.spec.sandbox.min)
    tiers = {session.tier for session in fitting}
    if "" in tiers or any(Tier.parse(tier) >= wanted for tier in tiers):
        return []
    text = (
        f"sandbox tier {wanted.label} is reached by no connected agent-runner "
        f"({pairs((session.agent.name, session.tier) for session in fitting)}): the job will fail there"
    )
    return [Wait(kind="sandbox", text=text)]


def _label_text(job: Job, sessions: Sequence[AgentSession]) -> str:
    missing = [
        label
        for label in sorted(job.spec.labels.items())
        if not any(label in session.labels.items() for session in sessions)
    ]
    offered = "; ".join(
        f"{session.agent.name}: {pairs(session.labels.items()) or 'none'}" for session in sessions
    )
    if missing:
        return f"no connected agent-runner offers {pairs(missing)} (offered: {offered})"
    return (
        f"no one agent-runner offers all of {pairs(job.spec.labels.items())} (offered: {offered})"
    )


def _names(sessions: Sequence[AgentSession]) -> str:
    names = ", ".join(sorted(session.agent.name for session in sessions))
    return f"agent-runner{'' if len(sessions) == 1 else 's'} {names}"
