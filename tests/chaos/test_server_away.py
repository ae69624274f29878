"""The server is away while a job prints: frozen, and dead; afterwards not a byte is missing."""

from __future__ import annotations

import signal
import time

import pytest

from tests.chaos.cluster import SERVER, Cluster
from tests.chaos.job_mix import PlannedJob, line_by_line, lines

AWAY_S = 6.5
"""Two minutes in `make chaos`."""
LEASE_S = 2.0
"""Shorter than the server is away: no lease may end because nobody could renew it."""


def server_away(how: str, away_s: float, lease_s: float) -> None:
    """Take the server away from a job that keeps printing, and judge what came of it."""
    count = int((away_s + 2) / 0.05)
    job = PlannedJob(1, "printing", line_by_line(1, count, 0.05), lines(1, count))
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


@pytest.mark.parametrize("how", ["frozen", "dead"])
def test_a_log_is_whole_after_the_server_was_away(how: str) -> None:
    server_away(how, AWAY_S, LEASE_S)
