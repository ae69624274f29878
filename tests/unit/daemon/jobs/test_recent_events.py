"""What is kept of the events: all after some id, or nothing is claimed about it."""

from __future__ import annotations

from daemon.jobs.models import JobEvent
from daemon.jobs.recent_events import KEPT, RecentEvents
from daemon.jobs.states import JobState


def events(first: int, last: int) -> list[JobEvent]:
    return [
        JobEvent(number, f"job{number % 2}", JobState.PENDING, 0, time_us=number)
        for number in range(first, last + 1)
    ]


def test_nothing_is_known_before_the_first():
    """There may be older ones in the database."""
    assert RecentEvents().after(0, 10, ()) is None


def test_events_after_an_id():
    """Oldest first, up to the limit, of some jobs or of all."""
    recent = RecentEvents()
    recent.add(events(5, 9))

    assert recent.after(3, 10, ()) is None
    assert recent.after(4, 10, ()) == events(5, 9)
    assert recent.after(6, 2, ()) == events(7, 8)
    assert recent.after(4, 10, {"job0"}) == [events(6, 6)[0], events(8, 8)[0]]
    assert recent.after(9, 10, ()) == recent.after(20, 10, ()) == []


def test_the_oldest_are_forgotten():
    """So who is further back than that has to ask the database, and after a removal everybody has."""
    recent = RecentEvents()
    recent.add(events(1, KEPT + 1))

    assert recent.after(0, 1, ()) is None
    assert recent.after(1, 1, ()) == events(2, 2)
    recent.forget()
    assert recent.after(KEPT, 1, ()) is None
