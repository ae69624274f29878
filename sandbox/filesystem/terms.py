"""What was agreed on for one sandbox, beside its folders."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.base import Network
from sandbox.bounds.guard import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the commands of one sandbox may reach and take."""

    network: Network
    hosts: tuple[str, ...]
    """For ``Network.HOSTS``."""
    bounds: Bounds
