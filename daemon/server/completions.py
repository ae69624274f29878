"""Work that must be completed although its caller has gone away.

gRPC cancels a handler when its client leaves. A store call that was begun commits all the same, and what follows a
commit (waking the dispatcher, telling watchers, freeing a slot) must follow it in every case, or a job waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Completions:
    """The unfinished work of one server. Used on one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end and return its result; a cancelled caller leaves it running."""
        caller: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._begin(work, caller)
        return await caller

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something to its end without waiting for it."""
        self._begin(work, None)

    async def drain(self) -> None:
        """Wait until nothing is left; called once, when no new work can come."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Coroutine[Any, Any, T], caller: asyncio.Future[T] | None) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, caller))

    def _end(self, caller: asyncio.Future[T] | None, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if caller is None or caller.done():
            if error is not None:
                _log_failure(error)
        elif task.cancelled():
            caller.cancel()
        elif error is not None:
            caller.set_exception(error)
        else:
            caller.set_result(task.result())


def _log_failure(error: BaseException) -> None:
    logger.warning(
        "a call failed after its caller had left",
        exc_info=error,
        extra={"action": "abandoned_call_failed"},
    )
