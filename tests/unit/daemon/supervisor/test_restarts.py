"""When a dead child is started again."""

from __future__ import annotations

from daemon.supervisor.restarts import MAX_DELAY_S, RestartBudget


def test_the_first_restart_is_at_once_then_the_delay_doubles():
    """Deaths after 20 s are not quick, so only the delay grows, to thirty seconds."""
    budget = RestartBudget()
    delays = [budget.delay_after_death(20) for _ in range(9)]
    assert delays == [0, 1, 2, 4, 8, 16, 30, 30, MAX_DELAY_S]


def test_five_quick_deaths_are_enough():
    """The fifth death within ten seconds of its start is the last one."""
    budget = RestartBudget()
    assert [budget.delay_after_death(0.1) for _ in range(5)] == [0, 1, 2, 4, None]


def test_a_minute_up_is_a_clean_slate():
    """Neither the delay nor the count survives a steady minute."""
    budget = RestartBudget()
    for _ in range(4):
        budget.delay_after_death(0.1)
    assert [budget.delay_after_death(up) for up in (60, 0.1, 0.1)] == [0, 1, 2]


def test_a_delay_has_a_bound_however_many_deaths():
    """No overflow after years of slow deaths."""
    budget = RestartBudget()
    delays = [budget.delay_after_death(30) for _ in range(5000)]
    assert delays[-1] == MAX_DELAY_S
