"""A container that is on its way: made and attached to, its start asked for."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sandbox.container.attachment import Attachment


class Starting(NamedTuple):
    """Its launcher will wait for a command as soon as it runs."""

    container: str
    """Its id."""
    attachment: Attachment
    started: asyncio.Future[None]
    """Done when it runs; raises what the engine says otherwise."""

    async def give_up(self) -> None:
        """Let go of it; when this returns the engine has nothing to do for it, so that it can be removed."""
        await self.attachment.close()
        await asyncio.wait({self.started})
        if not self.started.cancelled():
            self.started.exception()  # nobody else wants to know
