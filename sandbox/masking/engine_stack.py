"""Several engines that answer like one: what is added late is compiled by itself, not together with all that was there.

Without this a job that registers a thousand values one after the other compiles every pattern a thousand times: a
minute of one core, during which no other job of the agent-runner gets on.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple, Self

from sandbox.masking.engine import Findings, MaskEngine, Span

ALWAYS_JOINED = 256
"""So many patterns are compiled in some milliseconds; fewer engines search quicker."""
GROWTH = 4
"""An engine is joined with the next unless it has more than so many times the patterns: there are few, and each pattern is compiled seldom."""


class _Layer(NamedTuple):
    patterns: AbstractSet[bytes]
    engine: MaskEngine


class EngineStack:
    """A set of patterns, compiled. Immutable; may be used by many threads at once."""

    def __init__(self, layers: tuple[_Layer, ...] = ()) -> None:
        self._layers = layers

    def with_patterns(self, patterns: AbstractSet[bytes], *, automaton: bool) -> Self:
        """Return the stack that finds these too: at least one, none empty. Called once per change, and costs what is new."""
        layers = list(self._layers)
        while layers and len(layers[-1].patterns) <= max(GROWTH * len(patterns), ALWAYS_JOINED):
            patterns = patterns | layers.pop().patterns
        layers.append(_Layer(patterns, MaskEngine(patterns, automaton=automaton)))
        return type(self)(tuple(layers))

    @property
    def name(self) -> str:
        """Return the name of the implementation that searches; empty as long as there is nothing to find."""
        return self._layers[0].engine.name if self._layers else ""

    def scan(
        self, data: bytes, covered: int = 0, *, final: bool = False, calm: bool = False
    ) -> Findings:
        """Return what is hidden in a buffer and what has to wait; as ``MaskEngine.scan``, but in no order."""
        spans: list[Span] = []
        hold = len(data)
        for _, engine in self._layers:
            found, wait = engine.scan(data, covered, final=final, calm=calm)
            spans += found
            hold = min(hold, wait)
        return Findings(spans, hold)

    def cut_tail(self, data: bytes) -> int:
        """Return where a secret starts that the end of a stream cut off; as ``MaskEngine.cut_tail``."""
        return min((engine.cut_tail(data) for _, engine in self._layers), default=len(data))
