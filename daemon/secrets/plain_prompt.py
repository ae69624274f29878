"""The prompt for terminals that cannot draw: nothing is shown for what is typed."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Iterator

from daemon.secrets.terminal import SEVERAL_LINES, HiddenTerminal, LineRefusedError

MAX_LINE_BYTES = 1 << 20

_LINE_ENDS = b"\r\n"
_ESCAPES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b")
_INTERRUPT, _END_OF_INPUT, _KILL_LINE = 0x03, 0x04, 0x15
_BACKSPACES = (0x08, 0x7F)


def ask_plain(terminal: HiddenTerminal, label: str) -> str | None:
    """Read one line without any echo; None at the end of input.

    Raises:
        LineRefusedError: More than one line was pasted, or a line without end.
        KeyboardInterrupt: Ctrl-C.
    """
    line = bytearray()

    def start_over() -> None:
        line.clear()
        terminal.write(label)

    terminal.redraw = start_over
    terminal.write(label)
    try:
        is_whole = _read_line(terminal, line)
    finally:
        terminal.write("\n")
    return line.decode("utf-8", "surrogateescape") if is_whole else None


def _read_line(terminal: HiddenTerminal, line: bytearray) -> bool:
    """Fill ``line``; return False at the end of input."""
    while True:
        select.select((terminal.fd,), (), ())
        # A suspension clears the line. Between read and edit it would miss what was typed before it.
        with _no_suspension():
            data = _read(terminal.fd)
            if not data:
                return False
            is_whole = _take(terminal, line, data)
            if is_whole is not None:
                return is_whole


def _take(terminal: HiddenTerminal, line: bytearray, data: bytes) -> bool | None:
    """Apply what was typed; return True at the end of the line, False at the end of input."""
    # The codes of arrow keys arrive whole and would become part of the value.
    typed = _ESCAPES.sub(b"", data)
    for index, byte in enumerate(typed):
        if byte in _LINE_ENDS:
            if (typed[index + 1 :] + terminal.read_pending()).strip():
                raise LineRefusedError(SEVERAL_LINES)
            return True
        if byte == _INTERRUPT:
            raise KeyboardInterrupt
        if byte == _END_OF_INPUT:
            if not line:
                return False
            continue
        _edit(line, byte)
    if len(line) > MAX_LINE_BYTES:
        terminal.read_pending()
        raise LineRefusedError("the line is too long; nothing was taken")
    return None


@contextlib.contextmanager
def _no_suspension() -> Iterator[None]:
    """Let a SIGTSTP wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTSTP,))


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # the terminal hung up
        return b""


def _edit(line: bytearray, byte: int) -> None:
    """Apply one typed byte to the line."""
    if byte == _KILL_LINE:
        line.clear()
    elif byte in _BACKSPACES:
        while line and _is_continuation(line[-1]):
            line.pop()
        del line[-1:]
    else:
        line.append(byte)


def _is_continuation(byte: int) -> bool:
    """Return whether a byte is one of the later ones of a UTF-8 character."""
    return 0x80 <= byte < 0xC0  # noqa: PLR2004 - RFC 3629
