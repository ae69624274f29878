"""The short form of `make chaos`: some jobs, some kills, by one seed unless another is given; `make chaos` draws one."""

from __future__ import annotations

import os

from tests.chaos.campaign import campaign
from tests.chaos.installation import DAEMON, Installation

JOBS = 40
KILLS = 8
SEED = 20261122


def test_some_jobs_under_some_kills() -> None:
    seed = int(os.environ.get("RUNNER_CHAOS_SEED") or SEED)
    print(f"RUNNER_CHAOS_SEED={seed}")
    with Installation("--slots", "4") as installation:
        run = campaign(installation, seed, JOBS, KILLS)
        verdict = run.run()
        assert not verdict.objections, (seed, verdict.objections, installation.instance.tails())
        assert verdict.runs >= JOBS - 8, "those that were cancelled before they began"
        # One that is to die after its daemon may have left before its turn.
        late = sum(DAEMON in strike.victims[:-1] for strike in run.plan)
        assert sum(installation.kills.values()) >= KILLS - late
