"""A stream that can be ended from outside, by the task that serves it and with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from daemon.errors import DaemonError


class OpenStream:
    """Made in the task that serves the stream, which then takes everything that it sends through ``next``."""

    __slots__ = ("_task", "_waiting", "error")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._waiting = False
        self.error: DaemonError | None = None
        """Why it is to end, once it is."""

    def end(self, error: DaemonError) -> None:
        """End it; the first reason counts.

        The task is interrupted only where it waits for something to send. In the middle of sending it would leave a call
        without a status; it learns of the end when it comes back for the next thing.
        """
        if self.error is None:
            self.error = error
            if self._waiting and self._task is not None:
                self._task.cancel()

    async def next(self, responses: AsyncIterator[Any]) -> Any:
        """Return what there is to send next; None at the end of it.

        Raises:
            DaemonError: The stream was ended, for this reason.
        """
        if self.error is not None:
            raise self.error
        self._waiting = True
        try:
            response = await anext(responses, None)
        except asyncio.CancelledError:
            if self.error is None or self._task is None:
                raise
            self._task.uncancel()
            raise self.error from None
        finally:
            self._waiting = False
        if self.error is not None:
            raise self.error
        return response
