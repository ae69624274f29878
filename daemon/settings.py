"""What a setting is, and how its values are read. Imports next to nothing: the table of all settings is in ``config``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from agent_runner.project_names import PROJECT_NAME, PROJECT_RULE

MAX_TEXT = 1000
MAX_PORT = 65_535


class Setting(NamedTuple):
    """One setting: ``table.key`` in the file, ``RUNNER_…`` in the environment, a flag on the command line."""

    key: str
    env: str
    default: object
    parse: Callable[[object], object]
    """Returns the value or raises ValueError with what was expected."""
    help: str
    repeated: bool = True
    """Whether an error may repeat what was given: a value that belongs elsewhere may be a secret."""


def parse_listen(raw: object) -> str:
    """Return ``host:port`` for a listen address; only loopback hosts, because local mode has no TLS.

    Raises:
        ValueError: It is no such address.
    """
    text = str(raw)
    if text == "none":
        return text
    host, colon, port = text.rpartition(":")
    if not colon or host not in ("127.0.0.1", "localhost", "[::1]"):
        raise ValueError(
            "expected 127.0.0.1:PORT, [::1]:PORT or none (local mode listens on loopback only)"
        )
    if not port.isdecimal() or not 0 <= int(port) <= MAX_PORT:
        raise ValueError("expected a port from 0 to 65535 (0 takes a free one)")
    return f"{host}:{int(port)}"


def whole(low: int, high: int) -> Callable[[object], object]:
    """Return the reader of a whole number; it raises ValueError for what is none, or not in the range."""

    def parse(raw: object) -> object:
        if isinstance(raw, bool) or not re.fullmatch(r"[0-9]{1,19}", str(raw)):
            raise ValueError(f"expected a whole number from {low} to {high}")
        number = int(str(raw))
        if not low <= number <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return number

    return parse


def parse_seconds(raw: object) -> float:
    """Return a number of seconds from ``90``, ``1.5``, ``30s`` or ``2m``.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)(s|m|h)?", str(raw))
    if isinstance(raw, bool) or not match:
        raise ValueError("expected seconds, such as 90, 30s or 2m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


def parse_flag(raw: object) -> object:
    """Return what ``true``, ``yes``, ``1`` and their opposites mean.

    Raises:
        ValueError: It is none of them.
    """
    meanings = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(raw, bool):
        return raw
    if str(raw).lower() not in meanings:
        raise ValueError("expected true or false")
    return meanings[str(raw).lower()]


def choice(*allowed: str) -> Callable[[object], object]:
    """Return the reader of one of some words; it raises ValueError for any other."""

    def parse(raw: object) -> object:
        if raw not in allowed:
            raise ValueError(f"expected one of {', '.join(allowed)}")
        return raw

    return parse


def parse_words(raw: object) -> object:
    """Return a text of one line.

    Raises:
        ValueError: It is longer than anybody means, or holds what a line cannot.
    """
    if not isinstance(raw, str) or len(raw) > MAX_TEXT or not raw.isprintable():
        raise ValueError("expected a text without line breaks")
    return raw


def parse_project(raw: object) -> object:
    """Return the name of a project.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(raw, str) or not PROJECT_NAME.fullmatch(raw):
        raise ValueError(f"expected {PROJECT_RULE}")
    return raw


def parse_projects(raw: object) -> object:
    """Return names of projects, out of a list of them or a text with commas between them.

    Raises:
        ValueError: One is none.
    """
    names = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(names, list | tuple):
        raise ValueError(  # noqa: TRY004 - what every reader raises
            "expected names with commas between them, or a list of names"
        )
    return tuple(parse_project(name) for name in names if name)


def parse_name(raw: object) -> object:
    """Return a name that is part of paths and messages.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(raw, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", raw):
        raise ValueError("expected 1 to 64 letters, digits, dots, dashes or underscores")
    return raw


def optional(parse: Callable[[object], object]) -> Callable[[object], object]:
    """Return a reader for which an empty text is one, too."""
    return lambda raw: raw if raw == "" else parse(raw)


def parse_address(raw: object) -> str:
    """Return ``host:port`` for a listen address of any host, or ``none``. What may be listened on there is decided later.

    Raises:
        ValueError: It is no such address.
    """
    text = str(raw)
    host, colon, port = text.rpartition(":")
    if text != "none" and not (colon and re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", host)):
        raise ValueError("expected HOST:PORT, [IPV6]:PORT or none")
    if text != "none" and not (re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= MAX_PORT):
        raise ValueError("expected a port from 0 to 65535 (0 takes a free one)")
    return text


def parse_labels(raw: object) -> dict[str, str]:
    """Return labels from ``NAME=VALUE,…`` or a table.

    Raises:
        ValueError: It is neither.
    """
    labels = dict(raw.items() if isinstance(raw, dict) else _pairs(str(raw)))
    if not labels:
        return labels
    # A seventh of the way to a daemon's start, and most commands have no labels to read.
    from agent_runner.job_spec import LABEL_NAME, MAX_NAME_CHARS  # noqa: PLC0415

    for name, value in labels.items():
        fits = isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS and value.isprintable()
        # The way to the agent-runner has a comma between them.
        if not (fits and LABEL_NAME.fullmatch(name) and "," not in value):
            raise ValueError("expected NAME=VALUE pairs, such as gpu=true,zone=b")
    return labels


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [item.partition("=") for item in filter(None, map(str.strip, text.split(",")))]
    return [(name, value) for name, _, value in pairs]
