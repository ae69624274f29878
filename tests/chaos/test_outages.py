"""A server that is frozen or dead for a while, and agent-runners that stand still for longer than their lease."""

from __future__ import annotations

import pytest

from tests.chaos.outages import outages
from tests.chaos.side_by_side import side_by_side

LEASE_S = 3.0
"""Shorter than the server is away: no lease may end because nobody could renew it."""
AWAY_S = 6.5
"""Two minutes in `make chaos`; long enough for the reaper to notice."""
OUTAGES = outages(AWAY_S, LEASE_S)


@pytest.fixture(scope="module")
def raised() -> dict[str, str]:
    return side_by_side(OUTAGES)


@pytest.mark.parametrize("outage", list(OUTAGES))
def test_nothing_is_lost_and_nothing_done_twice(outage: str, raised: dict[str, str]) -> None:
    assert not raised[outage], raised[outage]
