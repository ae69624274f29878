"""The writing half of the log API: who may append to the log of an attempt, and what counts as appended."""

from __future__ import annotations

from dataclasses import replace

from agent_runner.outcome import Outcome
from daemon.errors import LeaseLostError, LogGapError, UsageError
from daemon.jobs.log_files import LogFiles
from daemon.jobs.models import LeaseRef
from daemon.jobs.store import JobStore
from daemon.server.signals import Signals, Subscription

MAX_PIECE_BYTES = 1 << 20


class LogWriter:
    """One per server; called for every piece of every log."""

    def __init__(self, store: JobStore, logs: LogFiles, signals: Signals) -> None:
        self._store = store
        self._logs = logs
        self._signals = signals

    def append(self, lease: LeaseRef, offset: int, data: bytes) -> int:
        """Store a piece and return the length of the log after it. The caller has checked the lease.

        Raises:
            LogGapError: The log ends before ``offset``.
            UsageError: The piece is too large, or its offset negative.
        """
        if len(data) > MAX_PIECE_BYTES:
            raise UsageError(f"data must hold at most {MAX_PIECE_BYTES} bytes")
        if not data:
            return self._logs.length(lease.job_id, lease.attempt)
        length = self._logs.append(lease.job_id, lease.attempt, offset, data)
        self._signals.log_grown(lease.job_id)
        return length

    async def check(self, lease: LeaseRef, changes: Subscription) -> None:
        """Check that a lease is still held; called for every piece, asks the store only after a change of its job.

        Raises:
            LeaseLostError: It is not.
        """
        if changes.take():
            await self._store.check_lease(lease)

    async def complete(
        self, lease: LeaseRef, outcome: Outcome, offset: int, tail: bytes
    ) -> Outcome:
        """Store the last piece of a log and return the outcome with its hash filled in.

        A report that comes a second time finds its lease ended: it adds nothing, and the store decides what it is worth.

        Raises:
            LogGapError: The stored log is not as long as the outcome says; send the rest first.
            UsageError: The log is longer than the outcome says, or ``append`` raises it.
        """
        try:
            await self._store.check_lease(lease)
        except LeaseLostError:
            return outcome
        length = self.append(lease, offset, tail)
        if length < outcome.log.length:
            raise LogGapError(length)
        if length > outcome.log.length:
            raise UsageError(
                f"log_bytes is {outcome.log.length}, but {length} bytes of the log were sent"
            )
        if outcome.log.sha256:
            return outcome
        sha256 = self._logs.sha256(lease.job_id, lease.attempt)
        return replace(outcome, log=replace(outcome.log, sha256=sha256))

    def close(self, lease: LeaseRef) -> None:
        """Let go of the log of an attempt that has ended."""
        self._logs.close_attempt(lease.job_id, lease.attempt)
        self._signals.log_grown(lease.job_id)
