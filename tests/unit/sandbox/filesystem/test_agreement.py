"""What sandboxes that ask for the same have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.base import Capabilities, Network, SandboxRequest, Tier
from sandbox.bounds.control_groups import ControlGroups
from sandbox.errors import SandboxUnavailableError
from sandbox.filesystem.agreement import KIND, Agreements
from sandbox.filesystem.tiers import PlainTier
from sandbox.limits import Limits


@pytest.fixture
def agreements(tmp_path: Path) -> Iterator[Agreements]:
    """Those of a provider that reaches the plain tier only, on a host without control groups."""
    backend = PlainTier(tmp_path, changes_user=False)
    yield Agreements(
        backend,
        Capabilities(kind=KIND, tier=Tier.PLAIN, reason="no walls"),
        ControlGroups("unit", []),
        allow_plain=False,
        changes_user=False,
    )
    backend._spawner.close()


def asked(name: str, **more: object) -> SandboxRequest:
    """Return a request of a job that consents to no walls."""
    return SandboxRequest(name=name, min_tier=Tier.PLAIN, **more)  # type: ignore[arg-type]


def test_who_asks_for_the_same_gets_the_same(agreements: Agreements) -> None:
    """Whatever the name; another bound is another agreement, and its keeper is looked for each time."""
    first = agreements.of(asked("a-1"))
    assert agreements.of(asked("a-2")) is first
    assert (
        agreements.of(asked("a-3", limits=Limits(open_files=9))).terms.bounds.limits.open_files == 9
    )

    bounded = [agreements.of(asked(name, limits=Limits(pids=9))) for name in ("a-4", "a-5")]

    assert bounded[0] == bounded[1] != first
    assert bounded[0] is not bounded[1]


@pytest.mark.parametrize(
    "more",
    [
        {"min_tier": Tier.LANDLOCK},
        {"network": Network.OFF},
        {"network": Network.HOSTS, "hosts": ("a.example",)},
        {"nested": "dind"},
        {"require": frozenset({"fs_read"})},
    ],
)
def test_what_cannot_be_held_is_refused_each_time(
    agreements: Agreements, more: dict[str, object]
) -> None:
    """Also after somebody who asked for less."""
    for _ in range(2):
        agreements.of(asked("a-1"))
        with pytest.raises(SandboxUnavailableError):
            agreements.of(SandboxRequest(name="a-2", **{"min_tier": Tier.PLAIN, **more}))  # type: ignore[arg-type]


def test_few_are_remembered(agreements: Agreements) -> None:
    """However many different ones jobs ask for."""
    for number in range(100):
        agreements.of(asked("a-1", limits=Limits(open_files=number)))

    assert len(agreements._kept) == 16
