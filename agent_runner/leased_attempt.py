"""One assignment on its way through this agent-runner: run it, ship its log, report its end exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

from agent_runner.backoff import Backoff
from agent_runner.client import Assigned, DaemonClient
from agent_runner.errors import (
    LeaseLostError,
    LogGapError,
    ServerRefusedError,
    ServerUnavailableError,
)
from agent_runner.executor import (
    AttemptControl,
    AttemptRequest,
    AttemptRun,
    SecretValues,
    StopReason,
)
from agent_runner.log_shipper import CHUNK_BYTES, LogShipper
from agent_runner.outcome import EndReason, Outcome
from agent_runner.spool import Spool
from sandbox.base import SandboxProvider

logger = logging.getLogger(__name__)

FIRST_SEND_DELAY_S = 0.001
"""A job shorter than this needs no log stream: its log rides in the message that ends it."""
INLINE_BYTES = CHUNK_BYTES


class LeasedAttempt:
    """One lease and everything that hangs on it."""

    def __init__(
        self,
        assigned: Assigned,
        client: DaemonClient,
        provider: SandboxProvider,
        secrets: SecretValues,
        spool_dir: Path,
    ) -> None:
        self.lease = assigned.lease
        self.control = AttemptControl()
        self._client = client
        self._spool = Spool(spool_dir / f"{self.lease.job_id}-{self.lease.attempt}.log")
        self._shipper = LogShipper(client, self.lease, self._spool)
        self._shipping: asyncio.Task[None] | None = None
        request = AttemptRequest(
            job_id=self.lease.job_id, attempt=self.lease.attempt, spec=assigned.spec
        )
        self._run = AttemptRun(provider, request, secrets, self._spool, self.control)
        self._fields = {"job_id": self.lease.job_id, "attempt": self.lease.attempt}

    async def run(self) -> None:
        """Do all of it. Returns when the server has the end, or the lease is lost, and the sandbox is gone."""
        logger.info("attempt started", extra={"action": "attempt_started", **self._fields})
        opener = asyncio.create_task(self._ship_soon())
        try:
            outcome = await self._execute()
            self._spool.close_writing()
            opener.cancel()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run.clean_up())
                group.create_task(self._report(outcome))
        finally:
            opener.cancel()
            await self._stop_shipping()
            await asyncio.shield(self._run.clean_up())
            self._spool.remove()

    async def _execute(self) -> Outcome:
        try:
            return await self._run.run()
        except OSError as error:
            logger.exception(
                "attempt failed on this host", extra={"action": "attempt_failed", **self._fields}
            )
            message = f"the agent-runner's disk failed: {error.strerror or error}"
        except Exception:
            logger.exception(
                "attempt hit a defect", extra={"action": "attempt_crashed", **self._fields}
            )
            message = "internal error of the agent-runner; see agent-runner.log"
        return Outcome(
            end_reason=EndReason.SANDBOX_FAILED, message=message, log=self._spool.summary()
        )

    async def _ship_soon(self) -> None:
        while self._spool.length == 0:
            await self._spool.changed()
        await asyncio.sleep(FIRST_SEND_DELAY_S)
        self._start_shipping()

    def _start_shipping(self) -> asyncio.Task[None]:
        if self._shipping is None:
            self._shipping = asyncio.create_task(self._ship())
        return self._shipping

    async def _ship(self) -> None:
        try:
            await self._shipper.run()
        except LeaseLostError:
            self.control.stop(StopReason.LOST, 0)
        finally:
            self._spool.set_paced(False)

    async def _stop_shipping(self) -> None:
        if self._shipping is not None:
            self._shipping.cancel()
            with contextlib.suppress(asyncio.CancelledError, ServerRefusedError):
                await self._shipping

    async def _report(self, outcome: Outcome) -> None:
        backoff = Backoff()
        while self.control.reason is not StopReason.LOST:
            try:
                await self._finish(outcome)
            except LogGapError as gap:
                self._spool.acknowledged = gap.acknowledged
                self._shipping = None
                self._start_shipping()
            except ServerUnavailableError:
                await backoff.wait()
            except (LeaseLostError, ServerRefusedError) as error:
                logger.warning(
                    "result not wanted",
                    extra={"action": "result_dropped", "why": str(error), **self._fields},
                )
                return
            else:
                logger.info(
                    "attempt finished",
                    extra={
                        "action": "attempt_finished",
                        "end_reason": str(outcome.end_reason),
                        "exit_code": str(outcome.exit_code),
                        **self._fields,
                    },
                )
                return

    async def _finish(self, outcome: Outcome) -> None:
        offset = 0
        if self._shipping is not None or self._spool.length > INLINE_BYTES:
            await self._start_shipping()
            offset = self._spool.acknowledged
        tail = self._spool.read(offset, INLINE_BYTES)
        if self.control.reason is not StopReason.LOST:
            await self._client.finish(self.lease, outcome, offset, tail)
