"""The short form of `make chaos`: some jobs, some kills, by a seed that is printed and may be given."""

from __future__ import annotations

import os
import secrets

from tests.chaos.campaign import campaign
from tests.chaos.installation import Installation

JOBS = 40
KILLS = 8


def test_some_jobs_under_some_kills() -> None:
    seed = int(os.environ.get("RUNNER_CHAOS_SEED") or secrets.randbelow(1 << 32))
    print(f"RUNNER_CHAOS_SEED={seed}")
    with Installation("--slots", "4") as installation:
        run = campaign(installation, seed, JOBS, KILLS)
        verdict = run.run()
        assert not verdict.objections, (seed, verdict.objections, installation.instance.tails())
        assert verdict.runs >= JOBS - 8, "those that were cancelled before they began"
        assert sum(installation.kills.values()) >= KILLS
