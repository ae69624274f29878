"""A page of lines on a terminal that is written over in place: only lines that changed are sent, in one piece.

A few sequences of ECMA-48 and two of xterm do, which every terminal of the last decades knows. The library rich does the same,
but importing it takes longer than the rest of the command.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import unicodedata
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

_OPEN = "\x1b[?1049h\x1b[?25l\x1b[2J"  # the other page, no cursor, empty
_CLOSE = "\x1b[?25h\x1b[?1049l"
_TO_LINE_END = "\x1b[K"


class Screen:
    """A context manager; the terminal is as before when it ends, also by a signal. Used by the main thread."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Prepare; ``on_change`` is called when the terminal has another size or is back after a stop, in a signal handler."""
        self._on_change = on_change
        self._shown: list[str] = []
        self._size = os.terminal_size((0, 0))
        self._old_handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the terminal."""
        handlers = {
            signal.SIGTERM: self._ended,
            signal.SIGHUP: self._ended,
            signal.SIGQUIT: self._ended,
            signal.SIGWINCH: self._changed,
            signal.SIGTSTP: self._stopped,
        }
        self._old_handlers = {
            number: signal.signal(number, handler) for number, handler in handlers.items()
        }
        _write(_OPEN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back."""
        _write(_CLOSE)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    @property
    def size(self) -> os.terminal_size:
        """Return columns and lines at this moment."""
        return shutil.get_terminal_size((80, 24))

    def show(self, lines: Sequence[str]) -> None:
        """Have the terminal show just these lines, as far as it has room; they hold printable characters only."""
        size = self.size
        pieces = []
        if size != self._size:
            pieces.append("\x1b[2J")
            self._shown, self._size = [], size
        page = [cut(line, size.columns) for line in lines[: size.lines]]
        for row in range(max(len(page), len(self._shown))):
            new = page[row] if row < len(page) else ""
            old = self._shown[row] if row < len(self._shown) else ""
            if new != old:
                # A line that fills the row leaves the cursor on its last cell, which must not be erased.
                end = _TO_LINE_END if cells(new) < size.columns else ""
                pieces.append(f"\x1b[{row + 1};1H{new}{end}")
        self._shown = page
        if pieces:
            _write("".join(pieces))

    def _changed(self, number: int, frame: FrameType | None) -> None:
        self._on_change()

    def _ended(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def _stopped(self, number: int, frame: FrameType | None) -> None:
        """Stop as the person wishes (Ctrl-Z), with the terminal as before; take it again afterwards."""
        _write(_CLOSE)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stopped)
        _write(_OPEN)
        self._shown = []
        self._on_change()


def can_be_screen() -> bool:
    """Tell whether standard output is a terminal that can be written over in place."""
    from daemon.config import environ  # noqa: PLC0415 - as late as it is needed

    return sys.stdout.isatty() and environ().get("TERM", "dumb") not in ("", "dumb")


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_width(char) for char in text)


def cut(text: str, columns: int) -> str:
    """Return the part of a text that has room."""
    if text.isascii():
        return text[:columns]
    room = columns
    for position, char in enumerate(text):
        room -= _width(char)
        if room < 0:
            return text[:position]
    return text


def padded(text: str, columns: int) -> str:
    """Return a text cut or filled to just so many columns."""
    part = cut(text, columns)
    return part + " " * (columns - cells(part))


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
