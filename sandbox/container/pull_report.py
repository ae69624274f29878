"""What the log of a job says while its image comes: a line at the begin, one every few seconds, one at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_S = 5.0
_MB = 1e6
_BEGUN = "Pulling fs layer"
_DONE = "Pull complete"
_HERE = "Download complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """One line of a registry's answer."""

    image: str
    layer: str
    status: str
    current_bytes: int
    total_bytes: int


class PullReport:
    """Sums up what an engine says of every layer. One per pull; an image that is up to date is worth no line."""

    def __init__(
        self, image: str, tell: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        """Remember whom to tell.

        Args:
            image: As the job names it.
            tell: Takes a line without its end.
            now: A clock, in seconds.
        """
        self._image = image
        self._tell = tell
        self._now = now
        self._layers: dict[str, tuple[int, int]] = {}
        self._done: set[str] = set()
        self._began = self._last = now()

    def take(self, progress: PullProgress) -> None:
        """Take one line of the engine's answer."""
        layer = progress.layer
        if progress.status == _BEGUN:
            if not self._layers:
                self._say(f"fetching the image {self._image}")
            self._layers[layer] = (0, 0)
        elif layer in self._layers:
            current, total = self._layers[layer]
            if progress.status == "Downloading":
                self._layers[layer] = (progress.current_bytes, max(total, progress.total_bytes))
            elif progress.status == _HERE:
                self._layers[layer] = (max(current, total), total)
            elif progress.status == _DONE:
                self._done.add(layer)
        if self._layers and self._now() - self._last >= EVERY_S:
            self._say(f"fetching the image {self._image}: {self._counts()}")

    def end(self) -> None:
        """Say that it is here, if it had to come."""
        if self._layers:
            self._done = set(self._layers)
            seconds = self._now() - self._began
            self._say(f"fetched the image {self._image} in {seconds:.0f} s: {self._counts()}")

    def _counts(self) -> str:
        current = sum(each[0] for each in self._layers.values()) / _MB
        total = sum(each[1] for each in self._layers.values()) / _MB
        return f"{len(self._done)} of {len(self._layers)} layers, {current:.0f} of {total:.0f} MB"

    def _say(self, line: str) -> None:
        self._last = self._now()
        self._tell(line)
