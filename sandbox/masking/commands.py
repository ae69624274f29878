"""Lets a job hide a value that it has just made up or fetched: a line ``::add-mask::VALUE`` in its output.

The line goes out as ``::add-mask::***`` and the value is hidden in everything behind it. Line ends in a value are
written ``%0A`` and ``%0D``, the percent sign ``%25``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from sandbox.masking.finder import Finder, compile_finder
from sandbox.masking.stream import MASK, MaskingStream

COMMAND = b"::add-mask::"
MAX_LATE_BYTES = 16 << 10
"""Of a value that a job registers while it runs."""
MAX_LINE_BYTES = 3 * MAX_LATE_BYTES
"""Of a line that registers it; a longer one is dropped whole."""
REFUSED = b"[runner: the value is too short, too long or too common to be masked]\n"

_NEXT_LINE = b"\n" + COMMAND
_LONG_BYTES = 16 << 10
"""Of more, compiled code tells in a fifth of the time that there is no command in it."""
_UNESCAPED = ((b"%0D", b"\r"), (b"%0A", b"\n"), (b"%25", b"%"))


class CommandStream:
    """One stream of a job in front of its masking. Used by one thread at a time."""

    def __init__(self, masking: MaskingStream, add: Callable[[str, bytes], bool]) -> None:
        """Begin a stream; ``add`` is called for each value, and tells whether it can be hidden."""
        self._masking = masking
        self._add = add
        self._held = b""  # a line that is or could become a command
        self._line_start = True
        self._dropping = False  # the rest of a line that was too long

    def feed(self, data: bytes) -> bytes:
        """Return what may leave after ``data`` has come in; may be empty, and is ``data`` itself if all may leave."""
        if self._dropping:
            end = data.find(b"\n") + 1
            if not end:
                return b""
            self._dropping, self._line_start, data = False, True, data[end:]
        buffer = self._held + data if self._held else data
        start = self._next_command(buffer, 0)
        if start < 0:
            self._held = b""
            return self._plain(buffer)
        return b"".join(self._parts(buffer, start))

    def close(self) -> bytes:
        """Return the rest and end the stream; a command without a line end counts."""
        held, self._held = self._held, b""
        rest = self._obey(held) if held.startswith(COMMAND) else self._plain(held)
        return rest + self._masking.close()

    def _parts(self, buffer: bytes, start: int) -> Iterator[bytes]:
        """Yield what leaves; ``start`` is where the first command begins."""
        position, self._held = 0, b""
        while start >= 0:
            yield self._plain(buffer[position:start])
            self._line_start = True
            position = buffer.find(b"\n", start) + 1
            if position:
                yield self._obey(buffer[start:position])
            elif len(buffer) - start <= MAX_LINE_BYTES:
                self._held = buffer[start:]
                return
            else:
                self._dropping = True
                yield self._masking.feed(COMMAND + MASK + b"\n" + REFUSED)
                return
            start = self._next_command(buffer, position)
        yield self._plain(buffer[position:])

    def _plain(self, data: bytes) -> bytes:
        if data:
            self._line_start = data.endswith(b"\n")
        return self._masking.feed(data)

    def _next_command(self, data: bytes, position: int) -> int:
        """Return where the next line begins that is a command, or could become one; -1 if there is none."""
        if (self._held or self._line_start) and _may_be_command(data, position):
            return position
        none = not position and len(data) > _LONG_BYTES and not _lines()(data)
        start = -1 if none else data.find(_NEXT_LINE, position)
        if start >= 0:
            return start + 1
        last = data.rfind(b"\n", max(position, len(data) - len(COMMAND))) + 1
        return last if last and _may_be_command(data, last) else -1

    def _obey(self, line: bytes) -> bytes:
        command = line.rstrip(b"\r\n")
        value = command[len(COMMAND) :]
        for escaped, plain in _UNESCAPED:
            value = value.replace(escaped, plain)
        hidden = len(value) <= MAX_LATE_BYTES and self._add("add-mask", value)
        answer = COMMAND + MASK + (line[len(command) :] or b"\n")
        return self._masking.feed(answer if hidden else answer + REFUSED)


def holds_command(data: bytes) -> bool:
    """Tell whether a line of a piece begins like a command; or, of a short piece, whether anything in it does."""
    if len(data) <= _LONG_BYTES:
        return COMMAND in data
    return data.startswith(COMMAND) or bool(_lines()(data))


@functools.cache
def _lines() -> Finder:
    return compile_finder([_NEXT_LINE], automaton=True)[1]


def _may_be_command(data: bytes, position: int) -> bool:
    """Tell whether a command begins at a place, or what could become one; not at the end."""
    beginning = data[position : position + len(COMMAND)]
    return bool(beginning) and COMMAND.startswith(beginning)
