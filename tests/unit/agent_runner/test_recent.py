"""What was made of the last few values."""

from __future__ import annotations

from agent_runner.recent import MAX_KNOWN, MAX_KNOWN_BYTES, Recent


def test_the_same_object_is_converted_once() -> None:
    """An equal one is another, since nothing is known of it but where it is."""
    made: list[list[str]] = []

    def make(value: list[str]) -> str:
        made.append(value)
        return "".join(value)

    recent = Recent(make, len)
    value = ["a", "b"]
    assert [recent.of(value), recent.of(value), recent.of(["a", "b"])] == ["ab"] * 3
    assert len(made) == 2


def test_little_is_remembered() -> None:
    """Neither what is large nor more than a few, and nothing is ever mistaken for another."""
    recent: Recent[tuple[str, int], str] = Recent(lambda value: value[0] * value[1], len)
    large = ("x", MAX_KNOWN_BYTES + 1)
    assert recent.of(large) is not recent.of(large)
    assert all(recent.of(("y", size)) == "y" * size for size in range(3 * MAX_KNOWN))
    assert len(recent._known) <= MAX_KNOWN
