"""The long form of the fault tests: ``python -m tests.chaos``, or ``make chaos``. Prints a table; exits 1 if anything was objected to."""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from tests.chaos import syscalls
from tests.chaos.campaign import Campaign, strikes, with_freezes
from tests.chaos.installation import Installation
from tests.chaos.job_mix import mix
from tests.chaos.outages import outages
from tests.chaos.path_fuzz import fuzz as fuzz_paths
from tests.chaos.path_fuzz import race
from tests.chaos.report import Report, describe_campaign
from tests.chaos.request_fuzz import fuzz
from tests.chaos.side_by_side import side_by_side
from tests.chaos.steps import EVERY, die_at
from tests.chaos.test_several_agent_runners import AGENTS, many_short_jobs

JOBS = 500
KILLS = 60
SHORT_JOBS = 2000
AWAY_S = 120.0
LEASE_S = 30.0
CALLS = 15
REQUESTS = 10_000
WORKSPACES = 2_000
SWAPS = 2_000
STEPS = 30
AT_ONCE = 3
"""How many of all steps are drawn; `--steps 0` takes every one."""


def main(argv: Sequence[str]) -> int:
    """Run the parts that were asked for; return the exit code."""
    options = _options(argv)
    print(f"seed {options.seed}", flush=True)
    report = Report()
    report.add("seed", options.seed)
    parts: dict[str, Callable[[], None]] = {
        "kills": lambda: _random_kills(report, options),
        "steps": lambda: _steps(report, options),
        "calls": lambda: _calls(report, options),
        "agents": lambda: _several_agent_runners(report, options),
        "away": lambda: _away(report, options),
        "requests": lambda: _requests(report, options),
        "paths": lambda: _paths(report, options),
    }
    for name in options.parts.split(","):
        began = time.monotonic()
        try:
            parts[name]()
        except Exception:  # noqa: BLE001 - the other parts are still worth running
            report.object(name, [traceback.format_exc()])
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(report.text())
    return 1 if report.objections else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument(
        "--freezes", type=int, default=2, help="of the agent-runner, past its lease"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--calls", type=int, default=CALLS, help="deaths at a system call")
    parser.add_argument("--short-jobs", type=int, default=SHORT_JOBS)
    parser.add_argument("--away", type=float, default=AWAY_S, help="seconds without a server")
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, help="made up for the proxy of a list of hosts"
    )
    parser.add_argument(
        "--workspaces",
        type=int,
        default=WORKSPACES,
        help="made up for what crosses the walls as files",
    )
    parser.add_argument("--tier", default="auto", help="strongest sandbox tier of the random kills")
    parser.add_argument("--parts", default="kills,steps,calls,agents,away,requests,paths")
    return parser.parse_args(argv)


def _random_kills(report: Report, options: argparse.Namespace) -> None:
    began = time.monotonic()
    rng = random.Random(options.seed)
    jobs = mix(options.jobs, rng)
    plan = with_freezes(strikes(options.kills, rng), options.freezes, options.freezes + 1, rng)
    with Installation("--slots", "4", "--sandbox-tier", options.tier) as installation:
        run = Campaign(installation, jobs, plan)
        verdict = run.run()
        describe_campaign(report, run, verdict, time.monotonic() - began)
        if verdict.objections:
            print(f"kept: {installation.keep()}", flush=True)


def _steps(report: Report, options: argparse.Namespace) -> None:
    drawn = random.Random(options.seed).sample(EVERY, options.steps or len(EVERY))
    works = {str(step): partial(die_at, step) for step in drawn}
    for name, raised in side_by_side(works, AT_ONCE).items():
        if raised:
            report.object(f"step {name}", [raised])
    report.add("deaths at a durable step", f"{len(drawn)} of {len(EVERY)} kinds")


def _calls(report: Report, options: argparse.Namespace) -> None:
    if not syscalls.available():
        report.add("deaths at a system call", "none: needs root and strace")
        return
    deaths = 0
    for seed in range(options.seed, options.seed + options.calls):
        try:
            name, died, objections = syscalls.die_at_a_call(seed)
        except Exception:  # noqa: BLE001 - the other calls are still worth running
            report.object(f"call of seed {seed}", [traceback.format_exc()])
        else:
            deaths += died
            report.object(name, objections)
    report.add("deaths at a system call", f"{deaths} of {options.calls} tries")


def _several_agent_runners(report: Report, options: argparse.Namespace) -> None:
    shares = many_short_jobs(options.short_jobs)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(shares.items()))
    report.add(f"short jobs on {AGENTS} agent-runners", f"{shares.total()} once each: {shown}")


def _away(report: Report, options: argparse.Namespace) -> None:
    for name, raised in side_by_side(outages(options.away, LEASE_S)).items():
        report.add(name, "FAILED" if raised else "log whole, side effect once")
        if raised:
            report.object(name, [raised])


def _requests(report: Report, options: argparse.Namespace) -> None:
    understood = fuzz(options.requests, options.seed)
    report.add("requests to the proxy", f"{options.requests} made up, {understood} understood")


def _paths(report: Report, options: argparse.Namespace) -> None:
    read = fuzz_paths(options.workspaces, options.seed)
    own = race(SWAPS)
    report.add("workspaces to copy from", f"{options.workspaces} made up, {read} files read")
    report.add("folders swapped for links", f"{SWAPS} reads, {own} of the job's own file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
