"""Hides secret values in every byte that leaves: job logs, our own logs, errors, records.

Masking works on bytes, not lines or text, between the pipe and every sink. Callers fail closed: if anything here
raises, the raw data must be withheld, never passed on.
"""

from __future__ import annotations

import threading

from sandbox.masking.engine_stack import EngineStack
from sandbox.masking.floors import is_trivial
from sandbox.masking.formats import FormatStream
from sandbox.masking.forms import derived_forms, given_forms
from sandbox.masking.stream import MASK, MaskingStream

__all__ = ["MASK", "WITHHELD", "Masker", "MaskingStream"]

WITHHELD = "[runner: text withheld, masking failed]"
MAX_SECRETS = 1000
MAX_PATTERN_BYTES = 16 << 20
"""Of all patterns of one masker together."""
MAX_ONE_PATTERN_BYTES = 64 << 10
"""A longer value is looked for in pieces of this size: they touch, so they become one mask, and less is held back."""


class Masker:
    """The values to hide. One per job, and one for our own logs.

    Every method may be called from any thread. A value that is added while a stream is open is
    hidden from the next chunk on, including the bytes that the stream holds back.
    """

    def __init__(self, *, automaton: bool = True, formats: bool = True) -> None:
        """Begin without values.

        Args:
            automaton: False takes the standard library even where the quicker engine is installed.
            formats: Whether what looks like a secret is hidden too, though nobody registered it.
        """
        self._automaton = automaton
        self._formats = formats
        self._lock = threading.Lock()
        self._values: set[bytes] = set()
        self._patterns: set[bytes] = set()
        self._pattern_bytes = 0
        self._secrets = 0
        # Forms are made in vain when there is no room for them: a job must not have that done a thousand times.
        self._longest_spelled = MAX_PATTERN_BYTES
        self._uncompiled: set[bytes] = set()
        self._engine = EngineStack()

    def copy(self, *, formats: bool) -> Masker:
        """Return another that knows the same values; what either learns from here on, the other does not.

        Cheap beside ``add``: a value is spelled and compiled once for all copies.
        """
        self.snapshot()
        other = Masker(automaton=self._automaton, formats=formats)
        with self._lock:
            other._values = set(self._values)
            other._patterns = set(self._patterns)
            other._pattern_bytes = self._pattern_bytes
            other._secrets = self._secrets
            other._longest_spelled = self._longest_spelled
            other._uncompiled = set(self._uncompiled)
            other._engine = self._engine
        return other

    def add(self, name: str, value: str | bytes, *, floor: int = 0) -> bool:
        """Register one value with all its forms. Takes some milliseconds for a long one.

        Args:
            name: Says at the call whose value it is; not kept.
            value: What to hide.
            floor: Refuse a value that is shorter; for one that is only presumed to be a secret.

        Returns:
            False when the value is too short or too common to be hidden without destroying the
            log, or there are too many; the caller warns by name, never by value.
        """
        raw = value if isinstance(value, bytes) else _encode(value)[0]
        if is_trivial(raw.strip()) or len(raw.strip()) < floor:
            return False
        if raw in self._values:
            return True
        given = _pieces(given_forms(raw))
        if self._secrets >= MAX_SECRETS and not given <= self._patterns:
            return False
        derived = _pieces(derived_forms(raw)) if len(raw) <= self._longest_spelled else set()
        with self._lock:
            if given <= self._patterns and derived <= self._patterns:
                return True
            if self._secrets >= MAX_SECRETS or not self._take(given):
                return False
            self._values.add(raw)
            self._secrets += 1
            # Too much to be looked for in every form is still hidden as it is.
            if not self._take(derived):
                self._longest_spelled = min(self._longest_spelled, len(raw) // 2)
        return True

    @property
    def size(self) -> int:
        """Return how many patterns it looks for, which is what its memory goes by."""
        return len(self._patterns)

    def stream(self) -> MaskingStream:
        """Open the masking of one byte stream; each descriptor of a job needs its own."""
        formats = FormatStream(automaton=self._automaton) if self._formats else None
        return MaskingStream(self.snapshot, formats)

    def mask_bytes(self, data: bytes) -> bytes:
        """Return the whole of ``data`` masked, as a stream of its own would be."""
        stream = self.stream()
        return stream.feed(data) + stream.close()

    def mask_text(self, text: str) -> str:
        """Return ``text`` masked. Never raises: what cannot be masked is withheld whole."""
        if not text:
            return text
        try:
            data, errors = _encode(text)
            masked = self.mask_bytes(data)
            return text if masked == data else _decode(masked, errors)
        except Exception:  # noqa: BLE001 - loggers and error paths call this; the raw text is worse
            return WITHHELD

    def snapshot(self) -> EngineStack | None:
        """Return the compiled patterns, or None while nothing is registered.

        Compiled on first use after a change, so that adding many values compiles once.
        """
        if not self._patterns:
            return None
        if self._uncompiled:
            with self._lock:
                if self._uncompiled:
                    new = frozenset(self._uncompiled)
                    self._engine = self._engine.with_patterns(new, automaton=self._automaton)
                    self._uncompiled.clear()
        return self._engine

    def _take(self, patterns: set[bytes]) -> bool:
        """Add patterns, all or none; none if they are too many together."""
        new = patterns - self._patterns
        size = sum(map(len, new))
        if self._pattern_bytes + size > MAX_PATTERN_BYTES:
            return False
        self._patterns |= new
        self._uncompiled |= new
        self._pattern_bytes += size
        return True


def _pieces(patterns: set[bytes]) -> set[bytes]:
    size = MAX_ONE_PATTERN_BYTES
    pieces: set[bytes] = set()
    for pattern in patterns:
        if len(pattern) <= size:
            pieces.add(pattern)
        else:
            pieces |= {pattern[at : at + size] for at in range(0, len(pattern) - size, size)}
            pieces.add(pattern[-size:])
    return pieces


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
