"""The moves between the states of a process."""

from __future__ import annotations

import itertools

import pytest

from daemon.supervisor.states import TRANSITIONS, ProcessState, move


@pytest.mark.parametrize(
    ("current", "following"), list(itertools.product(ProcessState, ProcessState))
)
def test_only_listed_moves_are_made(current, following):
    """Every pair is either in the table or a bug."""
    if following in TRANSITIONS[current]:
        assert move(current, following) is following
    else:
        with pytest.raises(RuntimeError, match=f"from {current} to {following}"):
            move(current, following)


def test_every_state_can_end_stopped():
    """From anywhere a stop leads to STOPPED."""
    for state in ProcessState:
        reached, fresh = {state}, {state}
        while fresh:
            fresh = {after for one in fresh for after in TRANSITIONS[one]} - reached
            reached |= fresh
        assert ProcessState.STOPPED in reached
