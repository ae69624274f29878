"""Secret values, the wish for one, and where one came from."""

from __future__ import annotations

import enum
from typing import NamedTuple, NoReturn


class SecretValue:
    """A value that shows itself only when it is asked to, in one place that a search can find."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "SecretValue(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and self._value == other._value

    def __hash__(self) -> int:
        return hash((SecretValue, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret value is not to be serialised")

    def reveal(self) -> str:
        """Return the value; the caller keeps it out of logs, errors, argv and files."""
        return self._value


class WantedSecret(NamedTuple):
    """A secret that is to be gathered before anything starts."""

    name: str
    """Environment variable that may hold it, and key of ``${secret:local:NAME}``."""

    required: bool = False
    description: str = ""
    """What a person calls it, for the prompt; "Secret" when empty."""
    kept: str = "kept in memory only"
    """What becomes of it, for the prompt."""


class SecretOrigin(enum.StrEnum):
    """Where a value was found, in the words that a person reads."""

    ENVIRONMENT = "the environment"
    STORE = "the secret store"
    KEYRING = "the keyring"
    TYPED = "the terminal"


class GatheredSecret(NamedTuple):
    """A value and its origin."""

    value: SecretValue
    origin: SecretOrigin
