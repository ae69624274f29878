"""Finds where the output of a command ends, in a container that goes on, and how it ended."""

from __future__ import annotations

import re
from typing import NamedTuple

_TOLD = re.compile(rb"([0-9]{3})([.mu])")
_TOLD_BYTES = 4
_SHORT = {b".": False, b"m": True, b"u": None}


class Ended(NamedTuple):
    """What the launcher knows of the end of a command."""

    exit_code: int
    short_of_memory: bool | None
    """Whether the kernel killed a process of it for memory; None if the launcher cannot see that."""


class EndMark:
    """Takes pieces of output and gives them back without the mark, however it is split. One per command."""

    def __init__(self, mark: bytes) -> None:
        """Remember what the launcher writes behind the output, right before the four bytes that tell the end; never empty."""
        self._mark = mark
        self._held = b""
        self.ended: Ended | None = None
        """Known while the mark is the last that has come: where something follows, it was output and nobody's word."""

    def feed(self, piece: bytes) -> bytes:
        """Return what is certainly output."""
        data = self._held + piece
        position = len(data) - len(self._mark) - _TOLD_BYTES
        told = _TOLD.fullmatch(data, max(0, position) + len(self._mark))
        if told and data.startswith(self._mark, position):
            self.ended = Ended(int(told[1]), _SHORT[told[2]])
        else:
            self.ended = None
            position = len(data) - self._begun(data)
        self._held = data[position:]
        return data[:position]

    def rest(self) -> bytes:
        """Return what looked like the beginning of a mark that never came whole."""
        held, self._held = self._held, b""
        return b"" if self.ended else held

    def _begun(self, data: bytes) -> int:
        """Return how many of the last bytes may begin a mark."""
        first = data.find(self._mark[:1], max(0, len(data) - len(self._mark) - _TOLD_BYTES + 1))
        while first >= 0:
            if self._mark.startswith(data[first : first + len(self._mark)]):
                return len(data) - first
            first = data.find(self._mark[:1], first + 1)
        return 0
