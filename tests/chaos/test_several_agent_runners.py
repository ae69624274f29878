"""Several agent-runners on one server: they share the work, and each job runs once."""

from __future__ import annotations

from collections import Counter

from tests.chaos.cluster import Cluster
from tests.chaos.job_mix import PlannedJob, lines

AGENTS = 4
JOBS = 120
"""2,000 in `make chaos`."""


def many_short_jobs(count: int) -> Counter[str]:
    """Run so many short jobs on four agent-runners; return how many each has run."""
    with Cluster(AGENTS) as cluster:
        jobs = [
            PlannedJob(n, "short", f"echo '{n} line 1'", lines(n, 1)) for n in range(1, count + 1)
        ]
        for job in jobs:
            cluster.submit(job)
        verdict = cluster.judge(jobs)
        assert not verdict.objections, verdict.objections
        assert verdict.runs == count
        assert verdict.states == {"SUCCEEDED EXITED": count}
        return Counter(cluster.client.get(job.job_id).attempts[0].agent for job in jobs)


def test_short_jobs_on_four_agent_runners() -> None:
    """Every job runs exactly once, and nobody goes without."""
    shares = many_short_jobs(JOBS)
    assert len(shares) == AGENTS
    assert min(shares.values()) >= JOBS // AGENTS // 4
