"""What was agreed on for a sandbox, beside its folders."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.base import Network
from sandbox.bounds.guard import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the commands of sandboxes that ask for the same may reach and take."""

    network: Network
    hosts: tuple[str, ...]
    """For ``Network.HOSTS``."""
    link: str | None = None
    """The pasta that connects a namespace of its own, for ``Network.ON``; None: that of the host is used."""
    bounds: Bounds

    @property
    def namespace(self) -> Network:
        """Return what the commands begin in: the network of the host (on), or a namespace of their own (off)."""
        own = self.network is not Network.ON or self.link is not None
        return Network.OFF if own else Network.ON
