"""Hides what looks like a secret in one stream of bytes, after the registered values are gone.

Only the body of a possible secret is held back, never its prefix, and only until the floor of its rule is
reached; from then on it is swallowed as it comes, so an endless one costs no memory. The result does not depend on
where the stream was cut: what is not decided yet is looked at again, together with what stands before it.
"""

from __future__ import annotations

from sandbox.masking.rules import LOOK_BEHIND_BYTES, MAX_ANCHOR_BYTES, MAX_PREFIX_BYTES
from sandbox.masking.verdicts import Found, Swallow, Undecided, candidates, judge

_MASK = b"***"


class FormatStream:
    """The state of one stream. Used by one thread at a time; begun cheaply, nothing is compiled before the first byte."""

    def __init__(self, *, automaton: bool = True) -> None:
        self._automaton = automaton
        self._tail = b""
        # So many bytes of the tail have left already, and are there to be looked at again.
        self._sent = 0
        # Before this nothing begins any more; the bytes are there to be looked back at.
        self._behind = 0
        self._swallow: Swallow | None = None

    def feed(self, data: bytes) -> bytes:
        """Return what may leave; ``data`` itself if all of it may and nothing was held back."""
        return self._advance(data, final=False) if data else data

    def close(self) -> bytes:
        """Return the rest. Called once, last."""
        return self._advance(b"", final=True)

    def _advance(self, data: bytes, *, final: bool) -> bytes:
        if self._swallow is not None:
            rest = self._swallow.feed(data)
            if not rest:
                return b""
            self._swallow, data = None, rest
        buffer = self._tail + data if self._tail else data
        hits = candidates(buffer, automaton=self._automaton)
        if not hits and self._sent == len(self._tail):
            begin = max(self._behind, len(buffer) - MAX_ANCHOR_BYTES)
            self._keep(buffer, begin, len(buffer), 0)
            return data
        return self._hide(buffer, hits, final=final)

    def _hide(self, buffer: bytes, hits: list[tuple[int, int]], *, final: bool) -> bytes:
        parts: list[bytes] = []
        position = self._sent
        border = 0  # what stands before the end of a mask says nothing about what stands after it
        hold = keep = len(buffer)
        for start, rule in hits:
            if start < max(border, self._behind):
                continue
            verdict = judge(rule, buffer, start, border, final=final)
            if isinstance(verdict, Undecided):
                hold, keep = verdict.start, start
                break
            if isinstance(verdict, Found):
                parts += (buffer[position : verdict.start], _MASK)
                position = border = verdict.end
                if verdict.swallow is not None:
                    self._swallow = verdict.swallow
                    break
        parts.append(buffer[position:hold])
        begin = max(border, self._behind, min(keep, len(buffer) - MAX_PREFIX_BYTES))
        self._keep(buffer, begin, hold, border)
        return b"".join(parts)

    def _keep(self, buffer: bytes, begin: int, hold: int, border: int) -> None:
        """Remember what is looked at again, from ``begin`` on, and what can be looked back at."""
        base = max(border, begin - LOOK_BEHIND_BYTES)
        self._tail = buffer[base:]
        self._sent = hold - base
        self._behind = begin - base
