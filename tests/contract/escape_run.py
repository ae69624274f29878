"""Runs the cases of ``tests/cases/escape*.json`` on one tier and prints what is wrong with each, as JSON.

``python -m tests.contract.escape_run TIER FOLDER [CASE…]``: a program of its own, for whoever starts it, with nothing but the
standard library, so that another user can run it. The tier ``warm`` is bubblewrap with sandboxes that are built ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.base import ExecRequest, Network, SandboxRequest, Tier
from sandbox.filesystem.provider import FilesystemProvider
from tests.contract.escape_case import EscapeCase

CASES = Path(__file__).parents[1] / "cases"
FILES = ("escape.json", "escape_more.json")
AT_ONCE = 4
ALONE = frozenset({"resource", "kill-all"})
CASE_S = 60
DEATH_S = 2.0
WARM = "warm"
WARM_UP_S = 0.5
"""How long a case waits for a sandbox that is built ahead; without one it is run all the same."""


def load() -> list[dict[str, Any]]:
    """Return all cases: those that were handed to us, and those of our own finding."""
    return [case for name in FILES for case in json.loads((CASES / name).read_text())["cases"]]


async def judge(case: Mapping[str, Any], provider: FilesystemProvider, root: Path) -> list[str]:
    """Run one case; return what is wrong with it."""
    if case.get("op", {}).get("op") == "kill_daemon":
        return await _kill_spawner(case, provider, root)
    try:
        async with asyncio.timeout(CASE_S):
            return await EscapeCase(case, provider, root).run()
    except Exception as error:  # noqa: BLE001 - what broke is what the test shows
        return [f"{type(error).__name__}: {error}"]


async def _kill_spawner(
    case: Mapping[str, Any], provider: FilesystemProvider, root: Path
) -> list[str]:
    """Run the case in a process that is killed meanwhile; return what still changes after a while."""
    tier = (await provider.probe()).tier.label
    folder = root.parent / f"{root.name}-killed"
    argv = [sys.executable, "-m", __spec__.name, tier, str(folder), f"{case['id']}!"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.DEVNULL)
    beats = folder / f"case-{case['id']}" / "job" / "src" / "hb"
    try:
        async with asyncio.timeout(CASE_S):
            while not beats.exists():
                await asyncio.sleep(0.02)
    finally:
        process.kill()
        await process.wait()
    await asyncio.sleep(DEATH_S)
    before = beats.stat().st_size
    await asyncio.sleep(0.6)
    problems = [] if beats.stat().st_size == before else ["the job goes on"]
    label = f"escape-{process.pid}"
    leftovers = FilesystemProvider(folder, owner_label=label, tier=Tier.parse(tier))
    await leftovers.reap()
    await leftovers.close()
    return problems


async def several_at_a_time(
    chosen: Sequence[Mapping[str, Any]],
    one: Callable[[Mapping[str, Any]], Awaitable[list[str]]],
    at_once: int,
) -> dict[str, list[str]]:
    """Run cases, each that would disturb others alone; return what is wrong with each."""
    found: dict[str, list[str]] = {}
    slots = asyncio.Semaphore(at_once)

    async def limited(case: Mapping[str, Any]) -> None:
        async with slots:
            found[case["id"]] = await one(case)

    alone = [case for case in chosen if case.get("danger") in ALONE]
    await asyncio.gather(*(limited(case) for case in chosen if case not in alone))
    for case in alone:
        await limited(case)
    return found


async def run(tier: str, root: Path, wanted: list[str]) -> dict[str, list[str]]:
    """Run the cases that are wanted, or all, several at a time; return what is wrong with each."""
    label = f"escape-{os.getpid()}"
    provider = FilesystemProvider(
        root,
        owner_label=label,
        tier=Tier.BWRAP if tier == WARM else Tier.parse(tier),
        warm_slots=AT_ONCE if tier == WARM else 0,
    )
    await provider.probe()

    async def one(case: Mapping[str, Any]) -> list[str]:
        if tier == WARM:
            await _some_time_for_a_slot(provider)
        return await judge(case, provider, root)

    chosen = [case for case in load() if not wanted or case["id"] in wanted]
    found = await several_at_a_time(chosen, one, AT_ONCE)
    await provider.close()
    return found


async def _some_time_for_a_slot(provider: FilesystemProvider) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WARM_UP_S):
            while not provider.parked_pids:
                await asyncio.sleep(0.01)


async def run_one_until_killed(tier: str, root: Path, wanted: str) -> None:
    """Run the command of a case, and nothing that would outlive this process."""
    label = f"escape-{os.getpid()}"
    provider = FilesystemProvider(root, owner_label=label, tier=Tier.parse(tier))
    case = next(case for case in load() if case["id"] == wanted)
    sandbox = await provider.create(SandboxRequest(name=f"case-{wanted}", network=Network.OFF))
    argv = ("/bin/sh", "-c", case["command"])
    command = await sandbox.exec(
        ExecRequest(argv=argv, env={}, cwd=sandbox.inside("/job/src"), timeout_s=CASE_S)
    )
    await command.wait()


if __name__ == "__main__":
    arguments = sys.argv[3:]
    if arguments and arguments[0].endswith("!"):
        asyncio.run(run_one_until_killed(sys.argv[1], Path(sys.argv[2]), arguments[0][:-1]))
    else:
        json.dump(asyncio.run(run(sys.argv[1], Path(sys.argv[2]), arguments)), sys.stdout)
