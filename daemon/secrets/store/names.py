"""Names of the store, checked as people give them."""

from __future__ import annotations

from typing import NamedTuple

from agent_runner.secret_names import KEY, PATH
from daemon.errors import UsageError

PATH_RULE = "1 to 8 parts of 1 to 64 letters, digits, '_' or '-', joined by '/'"
KEY_RULE = "1 to 128 letters, digits, '_' or '-'"


class SecretName(NamedTuple):
    """Where a value lies: ``${secret:path:key}``. Made by ``parse_name``, which checks it."""

    path: str
    key: str

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


def parse_name(path: str, key: str) -> SecretName:
    """Return a checked name; called for each name that a person or a file gives.

    Raises:
        UsageError: It does not follow the grammar. The text is not repeated: it may be a value in the wrong place.
    """
    check_path(path)
    if not KEY.fullmatch(key):
        raise UsageError(f"a key must be {KEY_RULE}")
    return SecretName(path, key)


def check_path(path: str) -> None:
    """Check a path.

    Raises:
        UsageError: It does not follow the grammar.
    """
    if not PATH.fullmatch(path):
        raise UsageError(f"a path must be {PATH_RULE}")
