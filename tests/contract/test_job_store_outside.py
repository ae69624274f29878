"""What every JobStore gives an agent-runner whose container engine is away."""

from __future__ import annotations

from agent_runner.sandbox_spec import SandboxSpec
from daemon.jobs.claimable import MAX_LOOKS
from daemon.jobs.models import AgentOffer
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import OFFER, claimed_ids, submitted, submitted_one


def outside(*projects: str) -> AgentOffer:
    return OFFER._replace(outside=frozenset(projects))


async def test_gives_only_what_does_without_a_container(store: JobStore):
    """A job that names the filesystem sandbox or may fall back on it, and those of projects that run there; best first."""
    await submitted_one(store)
    await submitted_one(store, project="cli", sandbox=SandboxSpec(kind="container"))
    await submitted_one(store, sandbox=SandboxSpec(fallback="ask"))
    fallback = await submitted_one(store, sandbox=SandboxSpec(fallback="allow", kind="container"))
    of_project = await submitted_one(store, project="cli")
    best = await submitted_one(store, priority=1, sandbox=SandboxSpec(kind="filesystem"))

    assert await claimed_ids(store, outside("cli"), limit=2) == [best, fallback]
    assert await claimed_ids(store, outside()) == []
    assert await claimed_ids(store, outside("cli", "other")) == [of_project]
    assert len(await claimed_ids(store)) == 3


async def test_finds_them_behind_others(store: JobStore):
    """As far as it looks, which is bounded in the database: a long queue must not be read for each claim."""
    await submitted(store, MAX_LOOKS - 1)
    behind = await submitted_one(store, sandbox=SandboxSpec(fallback="allow"))

    assert await claimed_ids(store, outside()) == [behind]
    assert len(await claimed_ids(store, limit=MAX_LOOKS)) == MAX_LOOKS - 1
