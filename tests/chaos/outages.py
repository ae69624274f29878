"""What happens while a process is away and comes back: a server, and an agent-runner that nobody waits for."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from runner.v1 import job_pb2
from tests.chaos.cluster import SERVER, Cluster
from tests.chaos.job_mix import PlannedJob, line_by_line, lines
from tests.waiting import wait_until

PAUSE_S = 0.1


def outages(away_s: float, lease_s: float) -> dict[str, Callable[[], None]]:
    """Return every outage by name. Each raises AssertionError if a promise is broken."""
    return {
        f"server frozen for {away_s:g} s": partial(server_away, "frozen", away_s, lease_s),
        f"server dead for {away_s:g} s": partial(server_away, "dead", away_s, lease_s),
        f"agent-runner frozen past {lease_s:g} s": partial(agent_runner_frozen, 2, lease_s),
        f"the only agent-runner frozen past {lease_s:g} s": partial(
            agent_runner_frozen, 1, lease_s
        ),
    }


def server_away(how: str, away_s: float, lease_s: float) -> None:
    """Take the server away from a job that keeps printing: not a byte is missing, and no attempt is lost."""
    count = int((away_s + 1) / PAUSE_S)
    job = PlannedJob(1, "printing", line_by_line(1, count, PAUSE_S), lines(1, count))
    with Cluster(1, lease_s=lease_s) as cluster:
        cluster.submit(job)
        cluster.wait_output(job)
        if how == "frozen":
            cluster.signal(SERVER, signal.SIGSTOP)
        else:
            cluster.kill(SERVER)
        time.sleep(away_s)
        if how == "frozen":
            cluster.signal(SERVER, signal.SIGCONT)
        else:
            cluster.start(SERVER)
        ended = cluster.client.wait(job.job_id, 60)
        verdict = cluster.judge([job])
        assert not verdict.objections, verdict.objections
        assert ended.attempt == 1, ended


def agent_runner_frozen(agents: int, lease_s: float) -> None:
    """Freeze the agent-runner of a job past its lease, thaw it: not a byte is written for the lease that it lost.

    With a second one the job runs there meanwhile; alone it runs again on the same, after it woke up.
    """
    count = 40
    job = PlannedJob(1, "frozen", line_by_line(1, count, PAUSE_S), lines(1, count))
    with Cluster(agents, lease_s=lease_s) as cluster:
        cluster.submit(job)
        cluster.wait_output(job)
        frozen = cluster.client.get(job.job_id).attempts[0].agent
        begin = time.monotonic()
        cluster.signal(frozen, signal.SIGSTOP)

        def lost() -> bool:
            return cluster.client.get(job.job_id).attempts[0].end_reason == job_pb2.END_REASON_LOST

        try:
            wait_until(lost, 2 * lease_s + 30, "the lease ends")
            if agents > 1:
                wait_until(lambda: len(cluster.witness.of(job.job_id)) == 2, 60, "the second run")
            data, end = cluster.client.log(job.job_id, 1)
        finally:
            cluster.signal(frozen, signal.SIGCONT)
        first = cluster.witness.of(job.job_id)[0]
        wait_until(lambda: first.end is not None, 30, "the first run is ended")
        ended = cluster.client.wait(job.job_id, 60)
        # The pipe and the spool of the one that was frozen held more than it had sent.
        assert cluster.client.log(job.job_id, 1) == (data, end)
        assert ended.attempt == 2
        assert (ended.attempts[1].agent != frozen) == (agents > 1)
        verdict = cluster.judge([job], freezes=((begin, time.monotonic()),))
        assert not verdict.objections, verdict.objections
