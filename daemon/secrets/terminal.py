"""A terminal with its echo off, given back as it was found, whatever ends the prompt."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, Self, TextIO

PASTE_GAP_S = 0.02
"""Input that follows the end of a line this soon was pasted, not typed."""

_CONTROLLING = "/dev/tty"
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
# Bracketed paste off, cursor shown: what prompt-toolkit may have switched.
_LEAVE_EDITOR = b"\x1b[?2004l\x1b[?25h"


class NoTerminalError(Exception):
    """There is no terminal to ask at."""


class LineRefusedError(Exception):
    """What was typed is not one line of text; the person is told why and asked again."""


SEVERAL_LINES = "more than one line was pasted; nothing was taken, enter a single line"


class HiddenTerminal:
    """Where a secret is typed: standard input and error, or the controlling terminal.

    A context manager, used once, from the main thread for signals to be covered. Nothing is ever
    written to standard output, which may be a file.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._previous: dict[int, Any] = {}
        self._saved: list[Any] = []
        self.is_editor = False
        """True while prompt-toolkit draws, so that a signal undoes its modes too."""
        self.redraw: Callable[[], None] = lambda: None
        """Called when the process goes on after it was suspended."""

    def __enter__(self) -> Self:
        """Open the terminal and switch its echo off.

        Raises:
            NoTerminalError: Neither standard input nor the controlling terminal can be used.
        """
        try:
            self.input = self._open(sys.stdin, "r")
            self.output = self._open(sys.stderr, "w")
            self.fd = self.input.fileno()
            self._saved = termios.tcgetattr(self.fd)
        except (OSError, ValueError, termios.error) as exc:
            self._stack.close()
            raise NoTerminalError from exc
        # Echo goes off before anything slow is imported: a paste may already be on its way.
        self._watch_signals()
        termios.tcsetattr(self.fd, termios.TCSADRAIN, _hidden(self._saved))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the terminal back as it was."""
        try:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self._saved)
        except termios.error:
            pass  # it hung up; there is nothing left to restore
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._stack.close()

    def write(self, text: str) -> None:
        """Show a text to the person."""
        self.output.write(text)
        self.output.flush()

    def read_pending(self) -> bytes:
        """Return what else is there or follows at once, and forget it."""
        pending = b""
        while select.select([self.fd], [], [], PASTE_GAP_S)[0]:
            data = os.read(self.fd, 65536)
            if not data:
                break
            pending = (pending + data)[-65536:]
        return pending

    def _open(self, stream: TextIO | None, mode: Literal["r", "w"]) -> TextIO:
        if stream is not None and stream.isatty():
            return stream
        return self._stack.enter_context(
            Path(_CONTROLLING).open(mode, encoding="utf-8", errors="replace")
        )

    def _watch_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            previous = signal.getsignal(number)
            if previous not in (signal.SIG_IGN, None):
                self._previous[number] = previous
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Restore the terminal, let the signal have its effect, and hide again if we still run."""
        current = termios.tcgetattr(self.fd)
        termios.tcsetattr(self.fd, termios.TCSANOW, self._saved)
        os.write(self.output.fileno(), (_LEAVE_EDITOR if self.is_editor else b"") + b"\r\n")
        previous = self._previous[number]
        if callable(previous):
            previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.signal(number, self._on_signal)
        termios.tcsetattr(self.fd, termios.TCSANOW, current)
        self.redraw()


def _hidden(attributes: list[Any]) -> list[Any]:
    """Return terminal attributes without echo, and without the 4,095 bytes that a line may have."""
    hidden = [*attributes[:6], list(attributes[6])]
    hidden[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON)
    hidden[6][termios.VMIN] = 1
    hidden[6][termios.VTIME] = 0
    return hidden
