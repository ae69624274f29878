"""What somebody who waits for a stop is told."""

from __future__ import annotations

import pytest

from daemon.cli.local import DrainProgress, goes_on
from daemon.errors import Interrupted


def test_a_drain_is_explained_once(capsys):
    """Only by a process that is still stopping when the daemon says so again."""
    progress = DrainProgress()
    for name, state in (
        ("agent-runner", "stopping"),
        ("agent-runner-2", "stopping"),
        ("agent-runner-2", "stopped"),
        ("agent-runner", "stopping"),
        ("agent-runner", "stopping"),
        ("agent-runner", "stopped"),
        ("job-server", "stopping"),
        ("job-server", "stopping"),
    ):
        progress({"process": name, "state": state, "pid": 1})

    assert capsys.readouterr().err.splitlines() == [
        "agent-runner-2 stopped",
        "agent-runner  lets running jobs end (`runner local stop --now` does not)",
        "agent-runner  stopped",
    ]


def test_ctrl_c_says_that_the_daemon_goes_on():
    """It was told, and needs nobody who waits."""
    with pytest.raises(Interrupted, match="the stop goes on"), goes_on("stop"):
        raise KeyboardInterrupt
