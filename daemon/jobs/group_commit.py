"""One thread that writes to one SQLite connection, many writes in one transaction.

A durable commit costs a sync of the disk however much it holds, so the writes that arrive while one transaction
commits share the next one. Each write runs in its own savepoint: one that fails takes back only itself. A write is
answered after the commit that holds it, never before. The callers of one transaction are all woken by one call into
the event loop, because waking it costs more than the writes.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, TypeVar

from daemon.errors import StoreUnavailableError

MAX_BATCH = 512
"""Writes after which a transaction takes no more; bounds how long the first of them waits."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Request:
    __slots__ = ("error", "future", "result", "then", "write")

    def __init__(
        self,
        write: Callable[[sqlite3.Connection], Any],
        future: asyncio.Future[Any],
        then: Callable[[Any], None] | None = None,
    ) -> None:
        self.write = write
        self.future = future
        self.then = then
        self.result: Any = None
        self.error: Exception | None = None


class GroupCommit:
    """Runs writes in its own thread. Every method is called on one event loop; ``open`` once, before the rest.

    Args:
        connect: Opens the connection, in ``autocommit`` (``isolation_level=None``); called in the thread.
        explain: Turns a failure of SQLite into the error that callers see.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        explain: Callable[[sqlite3.Error], Exception],
    ) -> None:
        self.commits = 0
        """How many transactions changed something; a measure of cost."""
        self._connect = connect
        self._explain = explain
        self._waiting: list[_Request] = []
        """What this turn of the loop has asked for; handed over once, because each handing over wakes the thread."""
        self._batches: queue.SimpleQueue[list[_Request] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._accepting = False

    async def open(self) -> None:
        """Start the thread and wait until its connection is open; passes on what ``connect`` raises."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        # A daemon thread, so that a process that dies by an exception is not held back by it:
        # what was acknowledged is on disk, and `close` is the orderly way.
        self._thread = threading.Thread(
            target=self._serve, args=(loop, ready), name="job-store-writer", daemon=True
        )
        self._thread.start()
        await ready
        self._accepting = True

    async def close(self) -> None:
        """Commit what was accepted, then end the thread. Idempotent."""
        if self._accepting:
            self._accepting = False
            self._hand_over()
            self._batches.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def run(
        self, write: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None
    ) -> T:
        """Run a write and return its result after it is durable; passes on what it raises.

        A caller that is cancelled while it waits does not take the write back.

        Args:
            write: Runs in the thread.
            then: Is called with the result, on the loop, as soon as it is known to be durable, whether or not the caller
                still waits, and in the order of the writes. It must not raise.

        Raises:
            StoreUnusableError: The store is closed, or the transaction could not be committed.
        """
        if not self._accepting:
            raise StoreUnavailableError("the job store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._hand_over)
        self._waiting.append(_Request(write, future, then))
        return await future

    def _hand_over(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._batches.put(waiting)

    def _serve(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        opening = _Request(write=lambda _: None, future=ready)
        try:
            connection = self._connect()
        except Exception as exc:  # noqa: BLE001 - raised again where `open` waits
            opening.error = exc
            _answer(loop, [opening])
            return
        with closing(connection):
            _answer(loop, [opening])
            more = True
            while more:
                batch, more = self._next_batch()
                if batch:
                    self._commit(connection, batch)
                    _answer(loop, batch)

    def _next_batch(self) -> tuple[list[_Request], bool]:
        batch: list[_Request] = []
        more = self._batches.get()
        with suppress(queue.Empty):
            while more is not None:
                batch += more
                if len(batch) >= MAX_BATCH:
                    return batch, True
                more = self._batches.get_nowait()
            return batch, False
        return batch, True

    def _commit(self, connection: sqlite3.Connection, batch: list[_Request]) -> None:
        changes = connection.total_changes
        try:
            connection.execute("BEGIN IMMEDIATE")
            for request in batch:
                self._run_one(connection, request)
            connection.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001 - raised again where each caller waits
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            # Also those that failed by themselves: they may have seen what is now taken back.
            for request in batch:
                request.error = self._explain(exc) if isinstance(exc, sqlite3.Error) else exc
        else:
            self.commits += connection.total_changes != changes

    def _run_one(self, connection: sqlite3.Connection, request: _Request) -> None:
        connection.execute("SAVEPOINT request")
        try:
            request.result = request.write(connection)
        except Exception as exc:
            # SQLite itself ends the transaction on some failures (disk full, I/O): all of it is gone.
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO request")
            request.error = self._explain(exc) if isinstance(exc, sqlite3.Error) else exc
        connection.execute("RELEASE request")


def _answer(loop: asyncio.AbstractEventLoop, batch: list[_Request]) -> None:
    # A loop that is closed has no caller left who could wait.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_settle, batch)


def _settle(batch: list[_Request]) -> None:
    for request in batch:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)
    # Last, so that those whom it wakes run after all who waited for this transaction.
    for request in batch:
        if request.then is not None and request.error is None:
            try:
                request.then(request.result)
            except Exception:
                # A defect, and what follows the others must follow all the same.
                logger.exception(
                    "what follows a commit has failed", extra={"action": "commit_follow_up_failed"}
                )
