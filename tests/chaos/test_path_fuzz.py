"""The short form of the fuzzing of paths; the long one is a part of ``make chaos``."""

from __future__ import annotations

from tests.chaos.path_fuzz import Entry, check, fuzz, race


def test_made_up_workspaces() -> None:
    """What crosses the walls is the job's own, whatever a job leaves and whatever is asked for."""
    assert fuzz(150, 11) > 20


def test_a_job_that_swaps_folders_meanwhile() -> None:
    """Each step stays below the one before it."""
    assert race(100) > 0


def test_the_check_bites() -> None:
    """A plain file is given, and one behind a link is not."""
    entries = [Entry("file", "a/b", ""), Entry("link", "c", "a"), Entry("link", "a/d", "OUTSIDE")]
    assert check(entries, entries, ["a/b", "c/b", "a/d/secret", "new/folder"]) == 2
