"""How long an agent-runner waits between tries to reach the server."""

from __future__ import annotations

from agent_runner.backoff import FIRST_S, LONGEST_S, Backoff


def test_doubles_up_to_the_longest() -> None:
    series = [Backoff() for _ in range(200)]
    longest = [max(backoff.next_s() for backoff in series) for _ in range(9)]
    assert FIRST_S / 2 < longest[0] <= FIRST_S
    assert FIRST_S < longest[1] <= 2 * FIRST_S
    assert LONGEST_S / 2 < longest[-1] <= LONGEST_S


def test_a_short_lease_makes_for_short_waits() -> None:
    backoff = Backoff()
    for _ in range(9):
        backoff.next_s()
    backoff.limit(0.3)
    assert 0.1 < max(backoff.next_s() for _ in range(200)) <= 0.3


def test_no_limit_makes_for_longer_waits() -> None:
    backoff = Backoff()
    backoff.limit(100)
    assert max(backoff.next_s() for _ in range(200)) <= LONGEST_S


def test_reset_begins_a_new_series() -> None:
    backoff = Backoff()
    for _ in range(9):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= FIRST_S
