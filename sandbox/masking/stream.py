"""Masks one stream of bytes, chunk by chunk: registered values first, then what looks like a secret.

The result does not depend on where the stream was cut into chunks: only an end that could still become a secret
is held back, without any timer, because a timed flush shows a secret that was written slowly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from sandbox.masking.engine import HEAD_BYTES, Span
from sandbox.masking.engine_stack import EngineStack
from sandbox.masking.formats import FormatStream

MASK = b"***"
WITHHELD = b"\n[runner: output withheld, masking failed]\n"

logger = logging.getLogger(__name__)


class Stream(Protocol):
    """Takes the chunks of one stream in order and returns what may leave. Used by one thread at a time."""

    def feed(self, data: bytes) -> bytes:
        """Return what may leave after ``data`` has come in; may be empty."""
        ...

    def close(self) -> bytes:
        """Return the rest and end the stream."""
        ...


class FailClosed:
    """A stream that shows nothing more once hiding has failed: what could not be looked at is never passed on."""

    def __init__(self, stream: Stream) -> None:
        self._stream: Stream | None = stream

    def feed(self, data: bytes) -> bytes:
        """Return what may leave."""
        return self._attempt(lambda stream: stream.feed(data))

    def close(self) -> bytes:
        """Return the rest and end the stream."""
        return self._attempt(lambda stream: stream.close())

    def _attempt(self, work: Callable[[Stream], bytes]) -> bytes:
        if self._stream is None:
            return b""
        try:
            return work(self._stream)
        except Exception:
            self._stream = None
            logger.exception(
                "masking failed; the rest of the output is withheld",
                extra={"action": "masking_failed"},
            )
            return WITHHELD


class MaskingStream:
    """Both layers of one stream. Used by one thread at a time."""

    def __init__(
        self, engine: Callable[[], EngineStack | None], formats: FormatStream | None
    ) -> None:
        """Begin a stream; ``engine`` is asked at each chunk, so values that are added later count from then on."""
        self._values = ValueStream(engine)
        self._formats = formats
        self._closed = False

    def feed(self, data: bytes) -> bytes:
        """Return what may leave after ``data`` has come in; may be empty, and is ``data`` itself if all may leave."""
        if self._closed:
            raise RuntimeError("feed() after close()")
        if data:
            data = self._values.feed(data)
        return data if self._formats is None else self._formats.feed(data)

    def close(self) -> bytes:
        """Return the rest and end the stream; a second call returns nothing."""
        if self._closed:
            return b""
        self._closed = True
        rest = self._values.close()
        return rest if self._formats is None else self._formats.feed(rest) + self._formats.close()


class ValueStream:
    """Hides registered values. Occurrences that overlap or touch become one mask, so their number does not show."""

    def __init__(self, engine: Callable[[], EngineStack | None]) -> None:
        self._engine = engine
        self._carry = b""
        # Bytes at the start of the carry that stand behind a mask already: they must stay there
        # for later matches, but must neither be printed nor masked a second time.
        self._covered = 0
        self._open = False  # the last thing that went out was a mask
        self._calm = False  # there was nothing to hide, and no long beginning of something

    def feed(self, data: bytes) -> bytes:
        """Return what may leave. Fewer bytes are held back than the longest registered value has."""
        engine = self._engine()
        if engine is None:
            return data
        buffer = self._carry + data if self._carry else data
        spans, hold = engine.scan(buffer, self._covered, calm=self._calm)
        self._calm = not spans and len(buffer) - hold < HEAD_BYTES
        return self._emit(buffer, spans, hold)

    def close(self) -> bytes:
        """Return the rest.

        Complete values are masked first; then a secret that the end cut off, when at least eight
        bytes and half of it are there.
        """
        buffer = self._carry
        engine = self._engine()
        if engine is None or not buffer:
            return buffer
        spans, _ = engine.scan(buffer, self._covered, final=True)
        tail = engine.cut_tail(buffer)
        if tail < len(buffer):
            spans.append((tail, len(buffer)))
        return self._emit(buffer, spans, len(buffer))

    def _emit(self, buffer: bytes, spans: list[Span], hold: int) -> bytes:
        if not spans and not self._covered:
            if hold == len(buffer):
                self._carry = b""
                self._open = False
                return buffer
            self._carry = buffer[hold:]
            self._open = self._open and hold == 0
            return buffer[:hold]
        if self._covered:
            spans.append((0, self._covered))
        spans.sort()
        parts: list[bytes] = []
        position = 0
        for start, end in spans:
            # A match inside the held part is decided later: it may join one that starts earlier.
            if start >= hold and not (self._open and start <= position):
                break
            if start > position:
                parts.append(buffer[position:start])
                self._open = False
                position = start
            if end > position:
                if not self._open:
                    parts.append(MASK)
                    self._open = True
                position = end
        if position < hold:
            parts.append(buffer[position:hold])
            self._open = False
            position = hold
        self._carry = buffer[hold:]
        self._covered = position - hold
        return b"".join(parts)
