"""The cases of tests/cases/escape*.json that a container has to withstand, on a real engine."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import container_escape_run
from tests.contract.deviations import CONTAINER, ESCAPE_DEVIATIONS, backend_on
from tests.contract.engine_kinds import ENGINES

WHOLE_RUN_S = 560

pytestmark = [pytest.mark.slow, pytest.mark.timeout(WHOLE_RUN_S + 20)]


@functools.cache
def outcome(engine: Path) -> dict[str, list[str]] | str:
    """Run all cases once; return what is wrong with each, or why they could not be run."""
    if not container_escape_run.PYTHON.exists():
        pytest.skip(f"{container_escape_run.PYTHON} is missing, of which the image is made")
    done = subprocess.run(
        [sys.executable, "-m", container_escape_run.__name__, str(engine)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=WHOLE_RUN_S,
        check=False,
    )
    if done.returncode != 0:
        return done.stderr.decode()[-2000:]
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def deviations(kind: str) -> dict[str, str]:
    """Return the cases that containers on a kind of engine do not withstand, and why."""
    tiers = (CONTAINER, backend_on(kind))
    return {case: why for (tier, case), why in ESCAPE_DEVIATIONS.items() if tier in tiers}


@pytest.mark.parametrize("case", container_escape_run.cases(), ids=lambda case: case["id"])
def test_withstands(case, container_engine, engine_kind, request):
    """The case does no harm, or the list of deviations says by name that containers do not withstand it."""
    if case.get("arch", os.uname().machine) != os.uname().machine:
        pytest.skip("written for another machine")
    if (reason := deviations(engine_kind).get(case["id"])) is not None:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    found = outcome(container_engine)
    assert isinstance(found, dict), found
    assert found[case["id"]] == []


def test_every_deviation_is_told():
    """They are what the list of hosts, `protect` and `syscalls` promise elsewhere, and one that has no way out."""
    known = {case["id"] for case in container_escape_run.cases()}
    assert all(deviations(kind).keys() <= known for kind in ENGINES)
    assert [len(deviations(kind)) for kind in ENGINES] == [10, 11]
