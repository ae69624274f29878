"""Which jobs this agent-runner takes for now: all, or, while its container engine is away, those that do without a container."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

MAX_SLOTS = 256
"""How many attempts one agent-runner may run at once."""


class Offer(NamedTuple):
    """What the job server is told."""

    no_containers: str = ""
    """Why there are none for now; empty if there are."""
    local_projects: tuple[str, ...] = ()
    """Projects whose jobs run outside containers unless they ask for one; told while there are none."""


EVERYTHING = Offer()


class Offering:
    """The offer of this moment. One per process: the sandboxes change it, the worker passes it on."""

    def __init__(
        self,
        local_projects: Iterable[str] = (),
        show: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Offer everything.

        Args:
            local_projects: As ``Offer``.
            show: Shows in a few words how things are to whoever watches this process.
        """
        self.now = EVERYTHING
        self._local_projects = tuple(sorted(local_projects))
        self._show = show
        self._tell: Callable[[Offer], None] = lambda _: None

    def listen(self, tell: Callable[[Offer], None]) -> None:
        """Have each later offer told; called once, by the worker."""
        self._tell = tell

    def engine_away(self, why: str) -> None:
        """Take note that the engine does not answer, and why, or with an empty text that it does again."""
        self.now = Offer(why, self._local_projects) if why else EVERYTHING
        self._tell(self.now)
        self._show(f"no containers: {why}" if why else "ready")
