"""Work that must be completed although its caller has gone away.

gRPC cancels a handler when its client leaves. A store call that was begun commits all the same, and what follows a
commit (waking the dispatcher, telling watchers, freeing a slot) must follow it in every case, or a job waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Completions:
    """The unfinished work of one server. Used on one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end and return its result; a cancelled caller leaves it running."""
        task = self._begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something to its end without waiting for it."""
        self._begin(work).add_done_callback(_log_failure)

    async def drain(self) -> None:
        """Wait until nothing is left; called once, when no new work can come."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.warning(
            "a call failed after its caller had left",
            exc_info=task.exception(),
            extra={"action": "abandoned_call_failed"},
        )
