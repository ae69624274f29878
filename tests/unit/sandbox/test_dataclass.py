"""The quick dataclass: whatever it makes behaves as what the standard library makes of the same class."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import pytest

from sandbox.dataclass import dataclass

DEFINE: dict[str, Callable[..., Any]] = {"ours": dataclass, "theirs": dataclasses.dataclass}


def make(define: Callable[..., Any], *, kw_only: bool) -> Any:
    @define(frozen=True, slots=True, kw_only=kw_only)
    class Thing:
        """A thing."""

        kind: ClassVar[str] = "thing"
        name: str
        size: int = 3
        parts: list[int] = field(default_factory=list)
        hidden: str = field(default="h", repr=False)
        note: str = field(default="n", compare=False)

        @property
        def double(self) -> int:
            return 2 * self.size

    return Thing


@pytest.fixture(params=[True, False], ids=["by name", "by place"])
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    ours, theirs = (make(define, kw_only=request.param) for define in DEFINE.values())
    return ours, theirs


def outcome(call: Callable[..., Any], *args: Any, **named: Any) -> object:
    try:
        return call(*args, **named)
    except Exception as error:  # noqa: BLE001 - it is compared
        return type(error), str(error)


def test_they_are_made_and_shown_alike(both: tuple[Any, Any]) -> None:
    """Signature, defaults, fields, representation and errors are the same."""
    ours, theirs = both
    parameters = [list(inspect.signature(cls).parameters) for cls in both]
    assert parameters[0] == parameters[1]
    assert [one.name for one in dataclasses.fields(ours)] == [
        one.name for one in dataclasses.fields(theirs)
    ]
    for given in ({}, {"name": "x"}, {"name": "x", "parts": [1], "hidden": "q"}, {"odd": 1}):
        assert repr(outcome(ours, **given)) == repr(outcome(theirs, **given))
    assert repr(outcome(ours, "x", 4)) == repr(outcome(theirs, "x", 4))
    for name in ("__slots__", "__match_args__", "__doc__", "__qualname__", "__module__"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.kind, ours(name="x").double) == ("thing", 6)


def test_each_object_has_its_own_of_what_a_factory_makes(both: tuple[Any, Any]) -> None:
    """As with the standard library."""
    ours, _ = both
    assert ours(name="x").parts is not ours(name="x").parts


def test_they_compare_alike(both: tuple[Any, Any]) -> None:
    """By the compared fields, with their own class only; hashes are those of the fields."""
    for cls in both:
        assert cls(name="x") == cls(name="x", note="other")
        assert cls(name="x") != cls(name="y")
        assert cls(name="x") != "x"
    ours, theirs = both
    assert ours(name="x") != theirs(name="x")
    assert hash(ours(name="x", parts=())) == hash(theirs(name="x", parts=()))
    assert outcome(hash, ours(name="x")) == outcome(hash, theirs(name="x"))


def test_they_are_frozen_alike(both: tuple[Any, Any]) -> None:
    """Nothing is assigned or deleted, of the class or beyond it; a copy and a replacement work."""
    results = []
    for cls in both:
        one = cls(name="x", size=1)
        results.append(
            [
                outcome(setattr, one, "name", "y"),
                outcome(delattr, one, "name"),
                repr(dataclasses.replace(one, size=7)),
                dataclasses.asdict(one),
                repr(copy.copy(one)),
                copy.deepcopy(one) == one,
            ]
        )
    assert results[0] == results[1]
    with pytest.raises(dataclasses.FrozenInstanceError):  # theirs is an odd TypeError
        both[0](name="x").other = "y"
    assert results[0][0] == (dataclasses.FrozenInstanceError, "cannot assign to field 'name'")


@dataclass(frozen=True, slots=True)
class Sent:
    """Something that crosses a process."""

    value: object = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """Has no field."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """Has its own words."""

    value: str

    def __repr__(self) -> str:
        return "***"


def test_one_field_none_or_a_word_of_its_own() -> None:
    """The odd ones work too, and one that holds itself has an end."""
    assert pickle.loads(pickle.dumps(Sent(value=(1, "a")))) == Sent(value=(1, "a"))
    assert (Sent(1) == Sent(1), Sent(1) == Sent(2), hash(Sent(1))) == (True, False, hash((1,)))
    assert (Nothing() == Nothing(), repr(Nothing())) == (True, "Nothing()")
    assert repr(Spoken("secret")) == "***"
    ring: list[object] = []
    ring.append(Sent(ring))
    assert "..." in repr(ring)


def test_what_it_cannot_do_is_said_at_once() -> None:
    """No class gets less than it asks for."""
    with pytest.raises(TypeError):
        dataclass(frozen=False, slots=True)
    with pytest.raises(TypeError, match="standard library"):

        @dataclass(frozen=True, slots=True)
        class Heir(Sent):
            more: int = 0

    with pytest.raises(TypeError, match="standard library"):

        @dataclass(frozen=True, slots=True)
        class After:
            value: int = 0

            def __post_init__(self) -> None: ...
