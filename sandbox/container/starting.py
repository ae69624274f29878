"""A container that is on its way: made and attached to, then started."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sandbox.container.attachment import Attachment
from sandbox.container.engine import Engine
from sandbox.errors import SandboxBrokenError


@dataclass(slots=True, eq=False)
class Starting:
    """Its launcher will wait for a command as soon as it runs."""

    container: str
    """Its id."""
    attachment: Attachment
    _started: asyncio.Future[None] | None = None

    def begin(self, engine: Engine) -> None:
        """Ask for the start. Called once."""
        self._started = asyncio.ensure_future(engine.start(self.container))

    async def running(self) -> None:
        """Wait until it runs; raise what the engine says otherwise. After ``begin``."""
        if self._started is None:
            raise SandboxBrokenError("the container was not started")
        await self._started

    async def give_up(self) -> None:
        """Let go of it; when this returns the engine has nothing to do for it, so that it can be removed."""
        await self.attachment.close()
        if self._started is None:
            return
        await asyncio.wait({self._started})
        if not self._started.cancelled():
            self._started.exception()  # nobody else wants to know
