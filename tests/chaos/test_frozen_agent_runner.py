"""An agent-runner that stands still for longer than its lease: its job runs elsewhere, and it cannot write a byte any more."""

from __future__ import annotations

import signal
import time

import pytest

from runner.v1 import job_pb2
from tests.chaos.cluster import Cluster
from tests.chaos.job_mix import PlannedJob, line_by_line, lines
from tests.waiting import wait_until

LEASE_S = 2.0


@pytest.mark.parametrize("agents", [2, 1])
def test_a_frozen_agent_runner_writes_nothing_more(agents: int) -> None:
    """With a second one the job runs there meanwhile; alone it runs again on the same, after it woke up."""
    count = 60
    job = PlannedJob(1, "frozen", line_by_line(1, count, 0.1), lines(1, count))
    with Cluster(agents, lease_s=LEASE_S) as cluster:
        cluster.submit(job)
        cluster.wait_output(job)
        frozen = cluster.client.get(job.job_id).attempts[0].agent
        begin = time.monotonic()
        cluster.signal(frozen, signal.SIGSTOP)

        def lost() -> bool:
            return cluster.client.get(job.job_id).attempts[0].end_reason == job_pb2.END_REASON_LOST

        try:
            wait_until(lost, 3 * LEASE_S + 5, "the lease ends")
            if agents > 1:
                wait_until(lambda: len(cluster.witness.of(job.job_id)) == 2, 20, "the second run")
            data, end = cluster.client.log(job.job_id, 1)
        finally:
            cluster.signal(frozen, signal.SIGCONT)
        # The spool of the one that was frozen holds more than it had sent.
        first = cluster.witness.of(job.job_id)[0]
        wait_until(lambda: first.end is not None, 10, "the first run is ended")
        assert not first.done
        ended = cluster.client.wait(job.job_id, 60)
        assert cluster.client.log(job.job_id, 1) == (data, end)
        assert ended.attempt == 2
        assert (ended.attempts[1].agent != frozen) == (agents > 1)
        verdict = cluster.judge([job], freezes=((begin, time.monotonic()),))
        assert not verdict.objections, verdict.objections
