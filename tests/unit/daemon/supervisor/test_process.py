"""How the end and the times of a process are told."""

from __future__ import annotations

import os

import pytest

from daemon.supervisor.process import exit_text, memory_bytes, rfc3339


@pytest.mark.parametrize(
    ("returncode", "text"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "signal 9 (SIGKILL)"), (-63, "signal 63")],
)
def test_an_end_is_a_code_or_a_signal(returncode, text):
    """Signals have their names where they have one."""
    assert exit_text(returncode) == text


def test_times_are_rfc_3339_in_utc():
    """With milliseconds and a Z."""
    assert rfc3339(1_700_000_000_123_456) == "2023-11-14T22:13:20.123Z"


def test_memory_of_a_process_is_its_resident_size():
    """Ours is there, that of nobody is not."""
    assert (memory_bytes(os.getpid()) or 0) > 1_000_000
    assert memory_bytes(2**30) is None
