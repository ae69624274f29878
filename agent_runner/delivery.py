"""Brings one attempt's log and end to the server, whatever happens on the way.

Nothing here raises but a cancellation: a result that cannot be delivered now is delivered later, by this process
or by the next one, from the spool. It gives up only when the server says that the lease is held no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_runner.backoff import Backoff
from agent_runner.client import DaemonClient, Lease
from agent_runner.errors import (
    LeaseLostError,
    LogGapError,
    NotAdmittedError,
    ServerRefusedError,
    ServerUnavailableError,
)
from agent_runner.log_shipper import LogShipper
from agent_runner.outcome import Outcome
from agent_runner.spool import Spool

if TYPE_CHECKING:
    from agent_runner.outputs.upload import OutputsUpload

logger = logging.getLogger(__name__)

FIRST_SEND_DELAY_S = 0.001
"""A job shorter than this needs no log stream: its log rides in the message that ends it."""
INLINE_BYTES = 256 << 10
"""A log of at most so much that was not streamed rides in that message."""


class Delivery:
    """One attempt's way to the server. ``begin`` while it runs, then ``report`` and ``finish``; or only ``finish``."""

    def __init__(
        self, client: DaemonClient, lease: Lease, spool: Spool, on_lost: Callable[[], None]
    ) -> None:
        self._client = client
        self._lease = lease
        self._spool = spool
        self._on_lost = on_lost
        self._shipper: LogShipper | None = None
        self._opening: asyncio.TimerHandle | None = None
        self._live: asyncio.Task[None] | None = None
        self._streaming = False
        self._answer: asyncio.Future[bool] | None = None
        self._upload: OutputsUpload | None = None
        self._told = False
        """Whether the log has it that the server does not let us in."""
        self.fields = {"job_id": lease.job_id, "attempt": lease.attempt}

    def begin(self) -> None:
        """Start to send the log as it is written."""
        self._spool.on_first_byte = self._open_soon

    def report(self, outcome: Outcome, *, urgent: bool) -> None:
        """Send the end as ``DaemonClient.report``, if nothing goes before it. ``finish`` sees to the rest."""
        self._stay_closed()
        if self._live is not None or outcome.outputs.files or self._spool.length > INLINE_BYTES:
            return
        self._spool.close_writing()
        try:
            tail = self._spool.read(0, INLINE_BYTES)
            self._answer = self._client.report(self._lease, outcome, 0, tail, urgent=urgent)
        except Exception:
            # As in `finish`, which tries again for as long as it takes.
            logger.exception("delivery failed", extra={"action": "delivery_failed", **self.fields})

    async def finish(self, outcome: Outcome | None, *, until_admitted: bool = True) -> bool:
        """Deliver the rest of the log, then the end; without an end, only the log.

        Returns True when the server has everything, False when it wants nothing of it.

        Raises:
            NotAdmittedError: The server does not let this agent-runner in, and that is not to be waited for.
        """
        if self._answer is not None and await self._answer:
            return True
        self._spool.close_writing()
        await self._settle_live()
        backoff = Backoff()
        while True:
            try:
                await self._finish(outcome)
            except LogGapError as gap:
                self._spool.acknowledge(gap.acknowledged)
                self._streaming = True
            except (LeaseLostError, ServerRefusedError) as error:
                logger.warning(
                    "result not wanted",
                    extra={"action": "result_dropped", "why": str(error), **self.fields},
                )
                return False
            except NotAdmittedError as error:
                if not until_admitted:
                    raise
                await self._wait_admitted(error, backoff)
            except ServerUnavailableError:
                await backoff.wait()
            except Exception:
                # A defect must not cost a result: it stays in the spool and is tried again.
                logger.exception(
                    "delivery failed", extra={"action": "delivery_failed", **self.fields}
                )
                await backoff.wait()
            else:
                return True

    async def stop(self) -> None:
        """End what goes on; the spool keeps what is not delivered. Idempotent."""
        self._stay_closed()
        if self._live is not None and not self._live.done():
            self._live.cancel()
            await asyncio.wait([self._live])

    async def _finish(self, outcome: Outcome | None) -> None:
        if self._streaming or self._spool.length > INLINE_BYTES or outcome is None:
            await self._ship()
            offset = self._spool.acknowledged
        else:
            offset = 0
        if outcome is not None:
            outcome = await self._with_outputs(outcome)
            end = self._lease, outcome, offset, self._spool.read(offset, INLINE_BYTES)
            # What was reported once and not accepted is asked for by a call, which says why.
            if self._answer is not None or not await self._client.report(*end):
                await self._client.finish(*end)

    async def _ship(self) -> None:
        """Send the log as ``LogShipper.run`` does."""
        if self._shipper is None:
            self._shipper = LogShipper(self._client, self._lease, self._spool)
        await self._shipper.run()

    async def _with_outputs(self, outcome: Outcome) -> Outcome:
        """Return the outcome once the server has the contents of its outputs."""
        if not outcome.outputs.files or (folder := self._spool.outputs) is None:
            return outcome
        if self._upload is None:
            from agent_runner.outputs.upload import OutputsUpload  # noqa: PLC0415 - few have any

            self._upload = OutputsUpload(self._client, self._lease, folder)
        return await self._upload.run(outcome)

    async def _settle_live(self) -> None:
        """Let a stream that is open send the rest; one that was not opened yet need not be."""
        self._stay_closed()
        if self._live is not None:
            await asyncio.wait([self._live])

    def _open_soon(self) -> None:
        self._opening = asyncio.get_running_loop().call_later(FIRST_SEND_DELAY_S, self._open)

    def _stay_closed(self) -> None:
        self._spool.on_first_byte = None
        if self._opening is not None:
            self._opening.cancel()

    def _open(self) -> None:
        self._streaming = True
        self._live = asyncio.create_task(self._send_live())

    async def _wait_admitted(self, error: NotAdmittedError, backoff: Backoff) -> None:
        if not self._told:
            self._told = True
            facts = {"action": "not_admitted", "why": str(error), **self.fields}
            logger.error("cannot deliver", extra=facts)
        await backoff.wait()

    async def _send_live(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._ship()
                break
            except LeaseLostError:
                self._on_lost()
                break
            except ServerRefusedError as error:
                logger.warning(
                    "log not wanted",
                    extra={"action": "log_dropped", "why": str(error), **self.fields},
                )
                break
            except NotAdmittedError as error:
                await self._wait_admitted(error, backoff)
            except Exception:
                logger.exception("log stream failed", extra={"action": "log_failed", **self.fields})
                await backoff.wait()
        # Whoever writes must not wait for a reader that has gone.
        self._spool.set_paced(False)
