"""What every JobStore does with the outputs of attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent_runner.outcome import EndReason, Outcome, OutputFile, OutputsRecord
from daemon.errors import LeaseLostError
from daemon.jobs.models import Excess
from daemon.jobs.store import JobStore
from tests.contract.job_store_backends import SUCCESS, running, submitted

A, B = "a" * 64, "b" * 64
FILES = (OutputFile("dist/ä\n", B, 7, 0o755), OutputFile("dist/x", A, 5, 0o644))


async def test_outputs_come_with_the_end(store: JobStore):
    """By name, for the attempt that left them; a repeated report changes nothing."""
    claim = await running(store)
    outcome = replace(SUCCESS, outputs=OutputsRecord(files=FILES, error="dist/y: is a link"))

    await store.finish(claim.lease, outcome)
    await store.finish(claim.lease, outcome)

    job_id = claim.lease.job_id
    assert await store.artifacts(job_id, 1) == sorted(FILES)
    assert await store.artifacts(job_id, 2) == []
    assert (await store.attempts(job_id))[0].outputs_error == "dist/y: is a link"
    assert await store.log_bytes() == 3 + 12


async def test_outputs_of_a_refused_report(store: JobStore):
    """They are not kept."""
    claim = await running(store)
    stale = claim.lease._replace(lease_token="another")

    with pytest.raises(LeaseLostError):
        await store.finish(stale, replace(SUCCESS, outputs=OutputsRecord(files=FILES)))

    assert await store.artifacts(claim.lease.job_id, 1) == []
    assert await store.referenced([A, B]) == set()


async def test_outputs_go_with_their_job(store: JobStore):
    """Contents that another job has too stay referenced."""
    outcome = Outcome(end_reason=EndReason.EXITED, exit_code=1)
    first, second = await running(store), await running(store)
    await store.finish(first.lease, replace(outcome, outputs=OutputsRecord(files=FILES)))
    await store.finish(second.lease, replace(outcome, outputs=OutputsRecord(files=FILES[1:])))
    await submitted(store)

    removed = await store.remove_ended(Excess(jobs=1), (), 9)

    assert removed.log_bytes == 12
    assert await store.artifacts(first.lease.job_id, 1) == []
    assert await store.referenced([A, B]) == {A}
