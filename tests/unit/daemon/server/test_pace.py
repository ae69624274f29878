"""How many attempts may be given ahead of their slots."""

from __future__ import annotations

import pytest

from daemon.server import pace as module
from daemon.server.pace import WITHIN_S, Pace


def test_as_many_as_ended_just_now_beyond_one_per_slot(monkeypatch: pytest.MonkeyPatch):
    """Never more than is of use, and nothing once it has been quiet, or one has come back."""
    monkeypatch.setattr(module, "MOST", 2)
    now = 100.0
    pace = Pace(lambda: now)
    found = [pace.ahead(2)]
    for _ in range(5):
        now += WITHIN_S / 10
        pace.ended()
        found.append(pace.ahead(2))
    assert found == [0, 0, 0, 1, 2, 2]
    assert pace.ahead(5) == 0  # long jobs that began together, and ended together
    now += WITHIN_S * 0.85
    assert pace.ahead(2) == 0
    pace.ended()
    assert pace.ahead(2) == 1
    pace.stalled()
    assert pace.ahead(0) == 0
