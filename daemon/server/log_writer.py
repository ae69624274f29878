"""The writing half of the log API: who may append to the log of an attempt, and what counts as appended."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import replace

from agent_runner.outcome import Outcome
from daemon.errors import LogGapError, UsageError
from daemon.jobs.log_files import LogFiles
from daemon.jobs.models import LeaseRef
from daemon.server.completions import Completions
from daemon.server.log_seals import seal
from daemon.server.signals import Signals

logger = logging.getLogger(__name__)

MAX_PIECE_BYTES = 1 << 20
THREAD_BYTES = 64 << 10
"""A piece of this size or more takes the disk longer than a thread costs, and the event loop must not wait for disks."""

DAMAGED = "damaged"
"""Why a log is not the one that was reported, in the field that says why one is shorter."""


class LogWriter:
    """One per server; called for every piece of every log."""

    def __init__(self, logs: LogFiles, signals: Signals, completions: Completions) -> None:
        self._completions = completions
        self._logs = logs
        self._signals = signals
        # Appends to one log run one after the other, so the next one to these would wait for the disk.
        self._in_threads: Counter[LeaseRef] = Counter()

    def holding(self, lease: LeaseRef) -> AbstractContextManager[None]:
        """Hold the log of an attempt; its lease is checked within the block, once.

        When the lease ends the log is sealed, and no append in the block adds anything after that.
        """
        return self._logs.held(lease.job_id, lease.attempt)

    async def append(self, lease: LeaseRef, offset: int, data: bytes) -> int:
        """Store a piece and return how much of the log is acknowledged then. The caller holds the log and has checked the lease.

        Raises:
            LeaseLostError: The attempt has ended meanwhile.
            LogGapError: What is acknowledged ends before ``offset``.
            UsageError: The piece is too large, or its offset negative.
        """
        if len(data) > MAX_PIECE_BYTES:
            raise UsageError(f"data must hold at most {MAX_PIECE_BYTES} bytes")
        if not data:
            return self._logs.acknowledged(lease.job_id, lease.attempt)
        if len(data) < THREAD_BYTES and lease not in self._in_threads:
            length = self._logs.append(lease.job_id, lease.attempt, offset, data)
        else:
            length = await self._completions.run(self._append_in_thread(lease, offset, data))
        self._signals.log_grown(lease.job_id)
        return length

    async def _append_in_thread(self, lease: LeaseRef, offset: int, data: bytes) -> int:
        self._in_threads[lease] += 1
        try:
            # Held here too: a caller that is cancelled lets go of it, but the thread goes on.
            with self.holding(lease):
                return await asyncio.to_thread(
                    self._logs.append, lease.job_id, lease.attempt, offset, data
                )
        finally:
            self._in_threads -= Counter((lease,))

    async def complete(
        self, lease: LeaseRef, outcome: Outcome, offset: int, tail: bytes
    ) -> Outcome:
        """Store the last piece of a log, seal it, compare it with what was reported, and return what is to be stored.

        A log of another hash than reported is sent again from its beginning, once: then what this host has lost or
        mangled is whole again. If that does not help, the report or the spool behind it is wrong. Then the result
        counts all the same and the log is kept as it is, marked as damaged and with the hash that it should have.

        The caller holds the log and has checked the lease.

        Raises:
            LogGapError: The stored log is shorter, or another; send the bytes from there first.
            UsageError: The stored log is longer though nothing was cut off what was reported, or ``append`` raises it.
        """
        stored = await self.append(lease, offset, tail)
        outcome = _with_all_stored(outcome, stored)
        length = outcome.log.length
        if stored < length:
            raise LogGapError(stored)
        if stored > length:
            raise UsageError(f"log_bytes is {length}, but {stored} bytes of the log were sent")
        await seal(self._logs, lease.job_id, lease.attempt)
        if outcome.log.sha256 in ("", await self._sha256(lease)):
            return await self.with_hash(lease, outcome)
        fields = {"job_id": lease.job_id, "attempt": lease.attempt}
        if self._logs.rewrite(lease.job_id, lease.attempt):
            logger.warning(
                "a log is not what was sent", extra={"action": "log_sent_again", **fields}
            )
            raise LogGapError(0)
        logger.error("a log stays damaged", extra={"action": "log_damaged", **fields})
        return replace(outcome, log=replace(outcome.log, truncated=DAMAGED))

    async def with_hash(self, lease: LeaseRef, outcome: Outcome) -> Outcome:
        """Return the outcome with the hash of the stored log, where its reporter made none or one of less than is stored."""
        if outcome.log.truncated:
            outcome = _with_all_stored(outcome, self._logs.length(lease.job_id, lease.attempt))
        if outcome.log.sha256:
            return outcome
        return replace(outcome, log=replace(outcome.log, sha256=await self._sha256(lease)))

    async def _sha256(self, lease: LeaseRef) -> str:
        key = (lease.job_id, lease.attempt)
        known = self._logs.known_sha256(*key)
        return await asyncio.to_thread(self._logs.sha256, *key) if known is None else known

    def close(self, lease: LeaseRef) -> None:
        """Let go of the log of an attempt that has ended."""
        self._logs.close_attempt(lease.job_id, lease.attempt)
        self._signals.log_grown(lease.job_id)


def _with_all_stored(outcome: Outcome, stored: int) -> Outcome:
    """Return what is to be recorded of a log that was cut back by its reporter, whose disk is full, to what it knew to be here.

    More had been sent by then and has arrived: it belongs to the log, and the reporter's hash is not of all of it.
    """
    if not outcome.log.truncated or stored <= outcome.log.length:
        return outcome
    return replace(outcome, log=replace(outcome.log, length=stored, sha256=""))
