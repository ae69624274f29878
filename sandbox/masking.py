"""Hides secret values in every byte that leaves: job logs, our own logs, errors, records.

Masking works on bytes, not lines or text, between the pipe and every sink. The result does not
depend on where a stream was cut into chunks: only an end that could still become a secret is held
back, without any timer, because a timed flush shows a secret that was written slowly.

Callers fail closed: if anything here raises, the raw data must be withheld, never passed on.
"""

from __future__ import annotations

import re
import threading

from sandbox.mask_engine import MaskEngine, Span, compile_engine

MASK = b"***"
MIN_SECRET_BYTES = 4
"""Shorter values would shred the log and protect nothing."""

MIN_LINE_BYTES = 8
"""A line of a multi-line value is derived, not given, hence the higher floor."""

WITHHELD = "[runner: text withheld, masking failed]"

_TRIVIAL = frozenset(
    b"true false null none yes no on off test main master dev prod debug info root admin "
    b"localhost default".split()
)
_MIN_DIGITS = 6
_MIN_REPEATED = 8
_LINE_END = re.compile(rb"\r\n|\r|\n")
_ONLY_PUNCTUATION = re.compile(rb"[^0-9A-Za-z\x80-\xff]*")
_PEM_EDGE = re.compile(rb"-----(?:BEGIN|END) [A-Z0-9 ]+-----")


class Masker:
    """The values to hide. One per job, and one for our own logs.

    Every method may be called from any thread. A value that is added while a stream is open is
    hidden from the next chunk on, including the bytes that the stream holds back.
    """

    def __init__(self, *, automaton: bool = True) -> None:
        self._automaton = automaton
        self._lock = threading.Lock()
        self._patterns: set[bytes] = set()
        self._engine: MaskEngine | None = None

    def add(self, name: str, value: str | bytes) -> bool:
        """Register one value, its stripped form, and each longer line of a multi-line value.

        Args:
            name: Says at the call whose value it is; not kept.
            value: What to hide.

        Returns:
            False when the value is too short or too common to be hidden without destroying the
            log; the caller warns by name, never by value.
        """
        raw = value if isinstance(value, bytes) else _encode(value)[0]
        if _is_trivial(raw.strip()):
            return False
        patterns = {raw, raw.strip(), *_lines(raw)}
        with self._lock:
            if not patterns <= self._patterns:
                self._patterns |= patterns
                self._engine = None
        return True

    def stream(self) -> MaskingStream:
        """Open the masking of one byte stream; stdout and stderr of a job need one each."""
        return MaskingStream(self)

    def mask_bytes(self, data: bytes) -> bytes:
        """Return the whole of ``data`` masked, as a stream of its own would be."""
        stream = MaskingStream(self)
        return stream.feed(data) + stream.close()

    def mask_text(self, text: str) -> str:
        """Return ``text`` masked. Never raises: what cannot be masked is withheld whole."""
        if not self._patterns:
            return text
        try:
            data, errors = _encode(text)
            masked = self.mask_bytes(data)
            return text if masked == data else _decode(masked, errors)
        except Exception:  # noqa: BLE001 - loggers and error paths call this; the raw text is worse
            return WITHHELD

    def snapshot(self) -> MaskEngine | None:
        """Return the compiled patterns, or None while nothing is registered.

        Compiled on first use after a change, so that adding many values compiles once.
        """
        engine = self._engine
        if engine is not None or not self._patterns:
            return engine
        with self._lock:
            if self._engine is None:
                self._engine = compile_engine(self._patterns, automaton=self._automaton)
            return self._engine


class MaskingStream:
    """Masks one stream of bytes, chunk by chunk. Used by one thread at a time.

    Occurrences that overlap or touch become one mask, so their number does not show.
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._carry = b""
        # Bytes at the start of the carry that stand behind a mask already: they must stay there
        # for later matches, but must neither be printed nor masked a second time.
        self._covered = 0
        self._open = False  # the last thing that went out was a mask
        self._closed = False

    def feed(self, data: bytes) -> bytes:
        """Return what may leave after ``data`` has come in; may be empty.

        Without registered values ``data`` itself comes back. Fewer bytes are held back than the
        longest registered value has.
        """
        if self._closed:
            raise RuntimeError("feed() after close()")
        if not data:
            return b""
        engine = self._masker.snapshot()
        if engine is None:
            return data
        buffer = self._carry + data if self._carry else data
        return self._emit(buffer, engine.find(buffer), engine.hold(buffer))

    def close(self) -> bytes:
        """Return the rest and end the stream; a second call returns nothing.

        Complete values are masked first; then a secret that the end cut off, when at least eight
        bytes and half of it are there.
        """
        self._closed = True
        buffer = self._carry
        engine = self._masker.snapshot()
        if engine is None or not buffer:
            return b""
        spans = engine.find(buffer)
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


def _encode(text: str) -> tuple[bytes, str]:
    """Return the bytes of a text and the error handler that turns them back."""
    # The environment carries undecodable bytes as escapes; other lone surrogates come from JSON.
    for errors in ("strict", "surrogateescape"):
        try:
            return text.encode("utf-8", errors), errors
        except UnicodeEncodeError:
            continue
    return text.encode("utf-8", "surrogatepass"), "surrogatepass"


def _decode(data: bytes, errors: str) -> str:
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError:  # a mask took the place of half a character
        return data.decode("utf-8", "replace")


def _is_trivial(value: bytes) -> bool:
    if len(value) < MIN_SECRET_BYTES or value.lower() in _TRIVIAL:
        return True
    if value.isdigit() and len(value) < _MIN_DIGITS:
        return True
    return len(set(value)) == 1 and len(value) < _MIN_REPEATED


def _lines(value: bytes) -> set[bytes]:
    """Return the lines of a multi-line value that are worth hiding alone."""
    lines = {line.strip() for line in _LINE_END.split(value)}
    return {
        line
        for line in lines
        if len(line) >= MIN_LINE_BYTES
        and not _is_trivial(line)
        and not _ONLY_PUNCTUATION.fullmatch(line)
        and not _PEM_EDGE.fullmatch(line)
    }
