"""Which values are worth hiding: the floors below which a mask destroys the log and protects nothing."""

from __future__ import annotations

import re

MIN_SECRET_BYTES = 4
"""Of a value that was given as a secret."""
MIN_DERIVED_BYTES = 8
"""Of a form or a part of it: it was not chosen by anybody, so it is more often an innocent word."""

_TRIVIAL = frozenset(
    b"true false null none yes no on off test main master dev prod debug info root admin "
    b"localhost default".split()
)
_MIN_DIGITS = 6
_MIN_REPEATED = 8
_ONLY_PUNCTUATION = re.compile(rb"[^0-9A-Za-z\x80-\xff]*")
_PEM_EDGE = re.compile(rb"-----(?:BEGIN|END) [A-Z0-9 ]+-----")
_SECRET_NAME = re.compile(
    r"(?:.*_)?(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|KEY|CREDENTIAL|CONNECTION_STRING|DSN)S?",
    re.IGNORECASE,
)


def is_trivial(value: bytes) -> bool:
    """Tell whether a given value is too short or too common to be hidden. Called once per secret."""
    if len(value) < MIN_SECRET_BYTES or value.lower() in _TRIVIAL:
        return True
    if value.isdigit() and len(value) < _MIN_DIGITS:
        return True
    return len(set(value)) == 1 and len(value) < _MIN_REPEATED


def is_telling(part: bytes) -> bool:
    """Tell whether a part of a value, such as one line, gives something away by itself."""
    return (
        len(part) >= MIN_DERIVED_BYTES
        and not is_trivial(part)
        and not _ONLY_PUNCTUATION.fullmatch(part)
        and not _PEM_EDGE.fullmatch(part)
    )


def is_secret_name(name: str) -> bool:
    """Tell whether a variable of this name holds a secret by custom, such as ``NPM_TOKEN`` or ``DB_PASSWORD``."""
    return _SECRET_NAME.fullmatch(name) is not None
