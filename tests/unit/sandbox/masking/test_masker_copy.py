"""Copies of a masker: the values that an agent-runner keeps are spelled once for all its jobs."""

from __future__ import annotations

from sandbox.masking.masker import Masker


def test_a_copy_knows_what_was_known():
    """In every spelling; and neither learns what the other is told later."""
    first = Masker()
    first.add("A", "correct horse battery")
    second = first.copy(formats=True)
    first.add("B", "only-the-first-knows")
    second.add("C", "only-the-second-knows")
    spelled = b"correct%20horse%20battery"
    assert first.mask_bytes(spelled) == second.mask_bytes(spelled) == b"***"
    assert second.mask_bytes(b"only-the-first-knows") == b"only-the-first-knows"
    assert first.mask_bytes(b"only-the-second-knows") == b"only-the-second-knows"
    assert second.mask_bytes(b"only-the-second-knows") == b"***"


def test_a_copy_counts_towards_the_bounds(monkeypatch):
    """A copy of a full masker takes nothing more, but goes on hiding what it knows."""
    monkeypatch.setattr("sandbox.masking.masker.MAX_SECRETS", 1)
    first = Masker()
    assert first.add("A", "the-only-one-there-is")
    second = first.copy(formats=False)
    assert not second.add("B", "one-too-many-of-them")
    assert second.add("A", "the-only-one-there-is")
