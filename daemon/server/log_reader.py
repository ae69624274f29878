"""The reading half of the log API. A follower is a position in a file and a wake-up, so a slow one costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from daemon.errors import (
    AttemptNotFoundError,
    JobNotFoundError,
    ShuttingDownError,
    StoreUnusableError,
    UsageError,
)
from daemon.jobs.log_files import LogFiles
from daemon.jobs.models import Attempt, Job
from daemon.jobs.store import JobStore
from daemon.server.log_seals import seal
from daemon.server.log_writer import THREAD_BYTES
from daemon.server.signals import STOP, Signals, Subscription, log_key
from runner.v1 import job_service_pb2 as pb

PIECE_BYTES = 256 << 10
"""A message costs about the same up to this size."""


class LogReader:
    """One per server."""

    def __init__(self, store: JobStore, logs: LogFiles, signals: Signals) -> None:
        self._store = store
        self._logs = logs
        self._signals = signals

    def with_lengths(self, attempts: list[Attempt]) -> list[Attempt]:
        """Return the attempts with the lengths of the logs that nobody has described yet."""
        return [
            attempt
            if _described(attempt)
            else attempt._replace(
                log=replace(attempt.log, length=self._logs.length(attempt.job_id, attempt.number)),
            )
            for attempt in attempts
        ]

    async def read(self, request: pb.ReadLogRequest) -> AsyncGenerator[pb.ReadLogResponse, None]:
        """Yield what a request asks for: the bytes of each attempt, and after them the end of its log.

        Raises:
            JobNotFoundError: No such job.
            AttemptNotFoundError: The job has no such attempt.
            UsageError: A number is negative.
            ShuttingDownError: The server stops; read on from the last offset later.
        """
        if request.attempt < 0 or request.offset < 0:
            raise UsageError("attempt and offset must not be negative")
        job_id = request.job_id
        with self._signals.subscribe((job_id, log_key(job_id))) as changes:
            job = await self._store.get(job_id)
            if request.attempt > job.attempt:
                raise AttemptNotFoundError(f"job {job_id} has {job.attempt} attempts so far")
            number = request.attempt or job.attempt
            offset = request.offset
            while True:
                if number:
                    # A reader that leaves ends the inner one too, now and not when it is collected.
                    pieces = self._attempt(job_id, number, offset, request, changes)
                    async with aclosing(pieces) as responses:
                        async for response in responses:
                            yield response
                if request.attempt or not request.follow:
                    break
                job = await self._next_attempt(job_id, number, changes)
                if job.attempt == number:
                    break
                number, offset = number + 1, 0
            if not number:
                end = pb.LogEnd(complete=job.state.final)
                yield pb.ReadLogResponse(end=end)

    async def _attempt(
        self,
        job_id: str,
        number: int,
        offset: int,
        request: pb.ReadLogRequest,
        changes: Subscription,
    ) -> AsyncGenerator[pb.ReadLogResponse, None]:
        attempt = await self._get(job_id, number)
        warm = False
        while True:
            if not attempt.state.leased:
                # Whoever still writes by a lease that was checked before the end comes too late.
                await seal(self._logs, job_id, number)
            while data := await self._piece(job_id, number, offset, warm=warm):
                yield pb.ReadLogResponse(attempt=number, offset=offset, data=data)
                offset += len(data)
            # The end was read from the store before the last read of the file, so that read saw everything.
            if not attempt.state.leased or not request.follow:
                break
            if await self._changed(changes) - {log_key(job_id)}:
                attempt = await self._get(job_id, number)
            warm = True
        yield pb.ReadLogResponse(attempt=number, offset=offset, end=await self._end(attempt))

    async def _piece(self, job_id: str, number: int, offset: int, *, warm: bool) -> bytes:
        left = self._logs.length(job_id, number) - offset
        if left <= 0:
            return b""
        if warm and left < THREAD_BYTES:
            # It was written a moment ago, so the disk is not asked.
            return self._logs.read(job_id, number, offset, PIECE_BYTES)
        return await asyncio.to_thread(self._logs.read, job_id, number, offset, PIECE_BYTES)

    async def _next_attempt(self, job_id: str, number: int, changes: Subscription) -> Job:
        """Wait until an attempt after this one has begun, or none will."""
        while True:
            job = await self._store.get(job_id)
            if job.attempt > number or job.state.final:
                return job
            await self._changed(changes)

    async def _changed(self, changes: Subscription) -> set[str]:
        fired = await changes.wait()
        if STOP in fired:
            raise ShuttingDownError(
                "the job server is stopping; read on from the last offset later"
            )
        return fired

    async def _get(self, job_id: str, number: int) -> Attempt:
        attempts = await self._store.attempts(job_id)
        if len(attempts) < number:
            raise JobNotFoundError(f"job {job_id} is not kept any more")
        return attempts[number - 1]

    async def _end(self, attempt: Attempt) -> pb.LogEnd:
        log = attempt.log
        key = (attempt.job_id, attempt.number)
        if attempt.state.leased:
            return pb.LogEnd(length=self._logs.length(*key), complete=False)
        if not _described(attempt):
            # Its agent-runner died: what counts is what was stored until then.
            sha256 = await asyncio.to_thread(self._logs.sha256, *key)
            log = replace(log, length=self._logs.length(*key), sha256=sha256)
            with suppress(StoreUnusableError):  # then the next reader does the same
                await self._store.describe_log(*key, log.length, log.sha256)
        return pb.LogEnd(
            length=log.length, sha256=log.sha256, truncated=log.truncated, complete=True
        )


def _described(attempt: Attempt) -> bool:
    return not attempt.state.leased and bool(attempt.log.sha256)
