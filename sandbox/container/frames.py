"""The engine's stream of a container without a terminal: stdout and stderr in one connection, each piece with a header."""

from __future__ import annotations

import enum
from collections.abc import Iterator

_HEADER_BYTES = 8
_MAX_PIECE = 256 << 10


class Channel(enum.IntEnum):
    """Where a piece came from, by its number in the header."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class FrameError(ValueError):
    """The bytes are no stream of frames."""


class FrameSplitter:
    """Takes bytes as they come and gives back (channel, piece); holds a header at most, never a whole frame."""

    def __init__(self) -> None:
        self._header = b""
        self._channel = Channel.STDOUT
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[Channel, bytes]]:
        """Yield what a read holds, in pieces of at most 256 KiB.

        Raises:
            FrameError: A header makes no sense; nothing after it can be trusted.
        """
        position = 0
        while position < len(data):
            if not self._left:
                taken = data[position : position + _HEADER_BYTES - len(self._header)]
                self._header += taken
                position += len(taken)
                if len(self._header) == _HEADER_BYTES:
                    self._open_frame()
                continue
            piece = data[position : position + min(self._left, _MAX_PIECE)]
            position += len(piece)
            self._left -= len(piece)
            yield self._channel, piece

    def _open_frame(self) -> None:
        number, zeros = self._header[0], self._header[1:4]
        if number > Channel.STDERR or zeros != b"\0\0\0":
            raise FrameError(f"no header of a stream of the engine: {self._header!r}")
        self._channel = Channel(number)
        self._left = int.from_bytes(self._header[4:], "big")
        self._header = b""
