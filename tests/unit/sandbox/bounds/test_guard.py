"""Each bound has a keeper, and what nobody keeps for all together is given to each process."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.bounds.control_groups import ControlGroups
from sandbox.bounds.guard import Bounds, bounds_of
from sandbox.bounds.hierarchies import Hierarchy
from sandbox.limits import GIB, MIB, Keeper, KeptLimit, Limit, Limits

ASKED = Limits(memory_bytes=GIB, cpus=2, pids=9, disk_bytes=5 * MIB)


def bounds(limits: Limits, hierarchies: list[Hierarchy], *, counts_alone: bool = True) -> Bounds:
    """Return the bounds of a sandbox on a host with these trees."""
    return bounds_of(
        limits=limits,
        groups=ControlGroups("unit", hierarchies),
        extra_pids=0,
        own_dev=False,
        counts_alone=counts_alone,
    )


def test_nothing_asked_costs_nothing() -> None:
    """No keeper is looked for, so there is nothing to guard."""
    found = bounds(Limits(), [])
    assert (found.kept, found.process_limits()) == ((), Limits())


def test_without_control_groups() -> None:
    """The watchdog and the limits of each process do what they can; CPU time is not kept, and that is said."""
    found = bounds(ASKED, [])
    assert {kept.limit: (kept.by, kept.held) for kept in found.kept} == {
        Limit.MEMORY: (Keeper.WATCHDOG, False),
        Limit.CPUS: (Keeper.NOBODY, False),
        Limit.PIDS: (Keeper.RLIMIT, True),
        Limit.DISK: (Keeper.WATCHDOG, True),
    }
    assert found.process_limits() == Limits(
        memory_bytes=GIB, cpus=2, pids=9, disk_bytes=5 * MIB, file_bytes=5 * MIB
    )
    shared = bounds(Limits(pids=9), [], counts_alone=False)
    assert [(kept.by, kept.held) for kept in shared.kept] == [(Keeper.WATCHDOG, False)]


def test_with_control_groups(tmp_path: Path) -> None:
    """What a group keeps is not bounded for each process as well: a program may reserve more than it uses."""
    hierarchy = Hierarchy(
        keeper=Keeper.CGROUP_V1, parent=tmp_path, limits=frozenset({Limit.MEMORY, Limit.PIDS})
    )
    found = bounds(ASKED, [hierarchy])
    assert {kept.limit: kept.by for kept in found.kept} == {
        Limit.MEMORY: Keeper.CGROUP_V1,
        Limit.CPUS: Keeper.NOBODY,
        Limit.PIDS: Keeper.CGROUP_V1,
        Limit.DISK: Keeper.WATCHDOG,
    }
    assert found.process_limits().memory_bytes is None
    assert found.process_limits().pids is None


@pytest.mark.parametrize("keeper", [Keeper.CGROUP_V1, Keeper.CGROUP_V2])
def test_a_kept_bound_is_held(keeper: Keeper) -> None:
    """By either version."""
    assert KeptLimit(limit=Limit.MEMORY, value=1, by=keeper).held
