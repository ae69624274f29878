"""Takes out of a job's output what would drive the terminal of whoever reads it: titles, clipboards, answers, screens.

Only line ends, tabs, backspaces and colours (SGR) pass. Who reads through a pipe or the API gets every byte. Sequences as ECMA-48
has them; what they have been used for: "Terminal Emulator Security Issues", H D Moore, 2003.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TextIO

MAX_SEQUENCE_BYTES = 4096
"""An unfinished sequence that is longer is no sequence: its beginning is dropped and the rest is text."""

_STRING = rb"(?:\x1b[]PX^_]|\xc2[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\n\xc2]*"
"""OSC, DCS, SOS, PM, APC. A line end ends them here, so that one which never ends hides nothing."""
_CONTROL = rb"(?:\x1b\[|\xc2\x9b)[0-?]*[ -/]*"
_ESCAPE = rb"\x1b[ -/]*"

_DROPPED = re.compile(
    rb"(?P<colour>\x1b\[[0-9;:]*m)"
    rb"|" + _STRING + rb"(?:\x07|\x1b\\|\xc2\x9c)?"
    rb"|" + _CONTROL + rb"[@-~]?"
    rb"|" + _ESCAPE + rb"[0-~]?"
    rb"|\xc2(?![\xa0-\xbf])[\x80-\x9f]?"  # also alone, or what is taken out behind it would complete it
    rb"|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]"
)
_UNFINISHED = re.compile(
    rb"(?:" + _STRING + rb"(?:\x1b|\xc2)?|" + _CONTROL + rb"|" + _ESCAPE + rb"|\xc2)\Z"
)


def shown_on(out: TextIO) -> Callable[[bytes], bytes]:
    """Return what a job's output goes through on its way to ``out``; called once per command that shows some."""
    return TerminalFilter().feed if out.isatty() else bytes


class TerminalFilter:
    """One per output. The result does not depend on how the output was cut, but for sequences beyond the bound."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may go to the terminal; an unfinished sequence waits for its rest, and without one is never shown."""
        data = self._held + data
        self._held = b""
        unfinished = _UNFINISHED.search(data)
        if unfinished and len(data) - unfinished.start() <= MAX_SEQUENCE_BYTES:
            self._held = data[unfinished.start() :]
            data = data[: unfinished.start()]
        return _DROPPED.sub(_colour, data)


def _colour(match: re.Match[bytes]) -> bytes:
    return match["colour"] or b""
