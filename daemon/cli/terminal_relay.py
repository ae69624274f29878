"""Joins what a person types, or a pipe holds, to a command behind walls: never by our own descriptors, which could be of anything.

In a terminal the command gets one of its own, which nothing of ours is reached by; this one is raw meanwhile, so that keys
like Ctrl-C are the command's. Else it reads a pipe, and its output goes the usual way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
import threading
import tty
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

_PIECE_BYTES = 64 << 10
_LAST_WORDS_S = 2.0
"""How long the end of the output is waited for."""


class PipeRelay:
    """What stands on a descriptor, for a command to read from a pipe. A context; used once."""

    def __init__(self, source: int, shown: Callable[[bytes], bytes]) -> None:
        """Make the pipe.

        Args:
            source: Where the commands come from.
            shown: Makes of output what may be printed.
        """
        self._source = source
        self._shown = shown
        self.stdin, self._sink = os.pipe()
        """What the command reads."""

    def __enter__(self) -> Self:
        # A daemon: nobody waits for a source that says nothing.
        threading.Thread(target=self._carry, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the end of the command, which ends the thread as soon as there is something to carry."""
        os.close(self.stdin)

    def show(self, data: bytes) -> None:
        """Print what the command has written."""
        _write_all(1, self._shown(data))

    def _carry(self) -> None:
        with contextlib.suppress(OSError):  # the command has gone
            while piece := os.read(self._source, _PIECE_BYTES):
                _write_all(self._sink, piece)
        os.close(self._sink)


class TerminalRelay:
    """A terminal of its own for a command, shown in this one. A context; used once, in the main thread.

    Raises:
        OSError: The host has no terminal or descriptor left.
    """

    def __init__(self, ours: int = 0, screen: int = 1) -> None:
        self._ours = ours
        self._screen = screen
        self._master, self.stdin = os.openpty()
        """What the command reads and writes."""
        os.set_blocking(self._master, False)
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._ours)
        self._resize()
        self._on_resize = signal.signal(signal.SIGWINCH, self._resize)
        tty.setraw(self._ours)
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Show the end of the output, and leave this terminal as it was."""
        os.close(self.stdin)  # the last one: the command and all that it left are dead
        os.write(self._waker, b"x")
        self._thread.join(_LAST_WORDS_S)
        signal.signal(signal.SIGWINCH, self._on_resize)
        termios.tcsetattr(self._ours, termios.TCSADRAIN, self._before)

    def show(self, data: bytes) -> None:
        """Print lines of the runner between what the command shows."""
        _write_all(self._screen, data.replace(b"\n", b"\r\n"))

    def _resize(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        with contextlib.suppress(OSError):
            size = fcntl.ioctl(self._ours, termios.TIOCGWINSZ, struct.pack("4H", 0, 0, 0, 0))
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _carry(self) -> None:
        """Carry both ways until the command's end of its terminal is closed. The whole of the thread.

        What was typed waits until the command takes it: one that writes and does not read must not wait for us.
        """
        typed, sources = b"", [self._ours]
        while True:
            sinks = [self._master] if typed else []
            listened = [self._master, self._wake, *([] if typed else sources)]
            ready, takes, _ = select.select(listened, sinks, [])
            try:
                if self._master in ready:
                    _write_all(self._screen, os.read(self._master, _PIECE_BYTES))
                if takes:
                    typed = typed[os.write(self._master, typed) :]
            except BlockingIOError:
                continue
            except OSError:  # the other end is closed; or nobody looks at this terminal any more
                return
            if self._wake in ready:
                os.read(self._wake, 1)
                typed, sources = b"", []
            elif self._ours in ready:
                typed = os.read(self._ours, _PIECE_BYTES)
                sources = sources if typed else []


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # whoever gave us the descriptor made it so
            select.select((), (fd,), ())
