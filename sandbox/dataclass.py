"""Defines frozen dataclasses with slots as the standard library does, in a quarter of the time.

That compiles a function for each method, 1 ms per class, and a start defines sixty classes and more: a sixth of it. Here only the
constructor is compiled, because a job makes many objects; the other methods are the same function for every class.
"""

from __future__ import annotations

import dataclasses
import operator
import reprlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from dataclasses import dataclass
else:

    def dataclass(
        *, frozen: bool, slots: bool, kw_only: bool = False
    ) -> Callable[[type[Any]], type[Any]]:
        """Return what makes a class a dataclass, as ``dataclasses.dataclass`` does. Called at import, once per class.

        Raises:
            TypeError: The class needs what only the standard library does; said when it is defined.
        """
        if not (frozen and slots):
            raise TypeError("only for frozen dataclasses with slots")
        return lambda cls: _define(cls, kw_only=kw_only)


__all__ = ("dataclass",)

_NOT_HERE = ("__post_init__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__getstate__")
_MADE = object()
"""Stands in the place of a default that a factory makes."""


def _define(cls: type[Any], *, kw_only: bool) -> type[Any]:
    if any(map(dataclasses.is_dataclass, cls.__mro__)) or any(map(cls.__dict__.get, _NOT_HERE)):
        raise TypeError(f"{cls.__qualname__} needs the dataclass of the standard library")
    own = {name: cls.__dict__[name] for name in ("__repr__",) if name in cls.__dict__}
    decorate = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)
    made = decorate(cls)
    fields = dataclasses.fields(made)
    if not all(each.init and each.hash is None and each.kw_only is kw_only for each in fields):
        raise TypeError(f"{cls.__qualname__} needs the dataclass of the standard library")
    methods: dict[str, Any] = {
        "__init__": _constructor(made, fields, kw_only=kw_only),
        **_comparison([each.name for each in fields if each.compare]),
        "__repr__": _representation([each.name for each in fields if each.repr]),
        **_frozen(made, [each.name for each in fields]),
        **own,
    }
    for name, method in methods.items():
        if name not in own:
            method.__qualname__ = f"{made.__qualname__}.{name}"
        setattr(made, name, method)
    return made


def _constructor(
    made: type[Any], fields: Sequence[dataclasses.Field[Any]], *, kw_only: bool
) -> Callable[..., None]:
    names: dict[str, Any] = {
        "__name__": made.__module__,
        "_set": object.__setattr__,
        "_MADE": _MADE,
    }
    parameters, lines = ["self", *(["*"] if kw_only and fields else [])], []
    for number, each in enumerate(fields):
        parameter = value = each.name
        if each.default is not dataclasses.MISSING:
            names[f"_{number}"] = each.default
            parameter += f"=_{number}"
        elif each.default_factory is not dataclasses.MISSING:
            names[f"_{number}"] = each.default_factory
            parameter += "=_MADE"
            value = f"_{number}() if {value} is _MADE else {value}"
        parameters.append(parameter)
        lines.append(f" _set(self, {each.name!r}, {value})\n")
    text = f"def __init__({', '.join(parameters)}):\n{''.join(lines) or ' pass'}"
    exec(text, names)  # noqa: S102 - of the names of fields, as the standard library does
    constructor: Callable[..., None] = names["__init__"]
    return constructor


def _comparison(compared: Sequence[str]) -> Mapping[str, Callable[..., Any]]:
    values: Callable[[Any], Any]
    if len(compared) > 1:
        values = operator.attrgetter(*compared)
    else:

        def values(one: Any) -> tuple[Any, ...]:
            return tuple([getattr(one, name) for name in compared])

    def equal(self: Any, other: object) -> Any:
        return (
            values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented
        )

    def hashed(self: Any) -> int:
        return hash(values(self))

    return {"__eq__": equal, "__hash__": hashed}


def _representation(shown: Sequence[str]) -> Callable[[Any], str]:
    @reprlib.recursive_repr()
    def represented(self: Any) -> str:
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in shown])
        return f"{self.__class__.__qualname__}({values})"

    return represented


def _frozen(made: type[Any], names: Sequence[str]) -> Mapping[str, Callable[..., Any]]:
    def assign(self: Any, name: str, value: object) -> None:
        if type(self) is made or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    def delete(self: Any, name: str) -> None:
        if type(self) is made or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(made, self).__delattr__(name)

    def state(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def restore(self: Any, values: Sequence[Any]) -> None:
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)

    return {
        "__setattr__": assign,
        "__delattr__": delete,
        "__getstate__": state,
        "__setstate__": restore,
    }
