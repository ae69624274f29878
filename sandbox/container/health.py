"""Whether the engine answers: learned from requests that it did not answer, then asked again and again until it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sandbox.errors import SandboxError

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""An engine that is back takes jobs again after that at the latest; to ask costs one connection."""

logger = logging.getLogger(__name__)


class EngineHealth:
    """One per engine. Does nothing while the engine answers."""

    def __init__(
        self, ask: Callable[[], Awaitable[object]], away: Callable[[str], None] | None
    ) -> None:
        """Believe that the engine answers.

        Args:
            ask: Raises a ``SandboxError`` while the engine cannot be used.
            away: Told why it cannot, and with an empty text that it can again; None where each job says so itself.
        """
        self._ask = ask
        self._away = away
        self._asking: asyncio.Task[None] | None = None

    def failed(self, error: SandboxError) -> None:
        """Take note that a request had no answer; called for each."""
        if self._asking is None or self._asking.done():
            self._tell(str(error))
            self._asking = asyncio.get_running_loop().create_task(self._until_back())

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
            self._asking = None

    async def _until_back(self) -> None:
        pause_s, said = FIRST_PAUSE_S, False
        while (error := await self._error()) is not None:
            if not said:  # once for each time that it is away
                said = True
                self._log(
                    logging.WARNING, "The container engine does not answer", "engine_away", error
                )
                self._tell(str(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        if said:
            self._log(logging.INFO, "The container engine answers again", "engine_back")
        self._tell("")

    def _tell(self, why: str) -> None:
        if self._away is not None:
            self._away(why)

    def _log(self, level: int, text: str, action: str, error: object = "") -> None:
        if self._away is not None:
            logger.log(level, text, extra={"action": action, "error": str(error)})

    async def _error(self) -> Exception | None:
        try:
            await self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, who does not ask again takes no job ever after
            return error
        return None
