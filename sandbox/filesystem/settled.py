"""Waiting for what cannot be interrupted: a thread goes on when the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def settled(future: asyncio.Future[T], on_cancel: Callable[[], None] | None = None) -> T:
    """Wait until a future is done, whatever happens; a cancellation is passed on after that.

    Args:
        future: Something that ends by itself, soon after ``on_cancel``.
        on_cancel: Asks it to end early; called once, at the first cancellation.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            if cancelled is None and on_cancel is not None:
                on_cancel()
            cancelled = error
    if cancelled is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # nobody is left who could be told
    raise cancelled


async def in_thread(work: Callable[[], T], on_cancel: Callable[[], None] | None = None) -> T:
    """Run ``work`` on a thread; return or raise only after it has ended. See ``settled``."""
    return await settled(asyncio.get_running_loop().run_in_executor(None, work), on_cancel)
