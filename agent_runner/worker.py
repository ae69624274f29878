"""The work loop: keeps one Work stream open, runs what is assigned, renews leases, and leaves in good order.

It never exits because the server is away. How it leaves: ``drain`` takes nothing new and lets attempts end;
``interrupt`` stops them and gives them back (they do not count); ``leave_now`` kills them and goes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from agent_runner.attempt_control import StopReason
from agent_runner.backoff import Backoff
from agent_runner.client import (
    Assigned,
    CancelAsked,
    DaemonClient,
    Inspection,
    InspectionAsked,
    Lease,
    LeaseEnded,
    Message,
    Registration,
    Welcome,
    WorkStream,
)
from agent_runner.config import AgentRunnerConfig
from agent_runner.delivery import Delivery
from agent_runner.ends import Ends
from agent_runner.errors import (
    AgentReplacedError,
    NotAdmittedError,
    ServerRefusedError,
    ServerUnavailableError,
)
from agent_runner.leased_attempt import LeasedAttempt
from agent_runner.offering import Offer, Offering
from agent_runner.outcome import SandboxRecord
from agent_runner.secret_source import SecretSource
from agent_runner.slots import Slots
from agent_runner.spool import Spool, leftovers, remove_orphans
from sandbox.base import SandboxProvider

logger = logging.getLogger(__name__)

REPORT_DEADLINE_S = 3.0
"""After an interrupt, how long the server may take to accept the reports before this process leaves."""


class Worker:
    """One per process. ``run`` once; the three ways to leave may be called at any moment, in any order."""

    def __init__(  # noqa: PLR0913 - the parts of one agent-runner, joined once
        self,
        *,
        config: AgentRunnerConfig,
        client: DaemonClient,
        provider: SandboxProvider,
        sandbox: SandboxRecord,
        secrets: SecretSource,
        on_ready: Callable[[], None],
        offering: Offering | None = None,
    ) -> None:
        self._config = config
        self._client = client
        self._provider = provider
        self._sandbox = sandbox
        self._secrets = secrets
        self._on_ready = on_ready
        self._offering = offering or Offering()
        self._offering.listen(self._offer)
        self._ends = Ends(config.spool_dir)
        self._slots = Slots(config.slots)
        self._attempts: dict[Lease, LeasedAttempt] = {}
        self._tasks: dict[Lease, asyncio.Task[None]] = {}
        self._stream: WorkStream | None = None
        self.replaced = False
        """Set when another start of the same name has taken over, which ends ``run``."""
        self._away = False
        self._draining = False
        self._idle = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._saying: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until told to leave and everything is reported; closes the client.

        Raises:
            ServerRefusedError: The server refused the very first registration.
        """
        session = asyncio.create_task(self._stay_connected())
        leaving = asyncio.create_task(self._idle.wait())
        try:
            await asyncio.wait({session, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                session.result()
                await self._idle.wait()
        finally:
            for timer in self._timers:
                timer.cancel()
            session.cancel()
            leaving.cancel()
            await asyncio.wait({session, leaving})
            await self._end_attempts()

    def drain(self) -> None:
        """Take nothing new, let what runs end, leave. Whoever sent the signal decides how long that may take."""
        if not self._draining:
            self._draining = True
            logger.info("draining", extra={"action": "draining", "running": len(self._attempts)})
            if self._stream is not None:
                self._say(self._stream.drain())
        self._check_idle()

    def interrupt(self, grace_s: float) -> None:
        """Stop what runs and give it back to the queue; leave at the latest soon after."""
        self.drain()
        logger.info(
            "interrupting", extra={"action": "interrupting", "running": len(self._attempts)}
        )
        for attempt in self._attempts.values():
            attempt.control.stop(StopReason.INTERRUPT, grace_s)
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(grace_s + REPORT_DEADLINE_S, self._idle.set))

    def leave_now(self) -> None:
        """Kill what runs and leave without waiting for the server."""
        self.interrupt(0)
        self._idle.set()

    async def _stay_connected(self) -> None:
        backoff = Backoff()
        known = False
        await self._deliver_leftovers()
        while True:
            try:
                registration = await self._client.register(
                    self._config.slots, dict(self._config.labels), self._sandbox
                )
                if not known:
                    known = True
                    self._on_ready()
                self._away = False
                backoff.reset()
                # A server that is back gives each lease one full time, so renewals must not wait longer.
                backoff.limit(registration.renew_s / 2)
                await self._session(registration)
            except NotAdmittedError as error:
                if not known:
                    raise ServerRefusedError(str(error)) from error
                logger.error(  # noqa: TRY400 - a status, not a defect
                    "not admitted", extra={"action": "not_admitted", "why": str(error)}
                )
            except ServerUnavailableError as error:
                self._say_away(error)
            except AgentReplacedError as error:
                logger.error("replaced", extra={"action": "replaced", "why": str(error)})  # noqa: TRY400
                self.replaced = True
                self._lose_all()
                return
            except ServerRefusedError as error:
                if not known:
                    raise
                logger.error(  # noqa: TRY400 - a status, not a defect
                    "server refused", extra={"action": "server_refused", "why": str(error)}
                )
            await backoff.wait()

    def _say_away(self, error: ServerUnavailableError) -> None:
        """Log once per outage that the server does not answer, and each further try for who looks for it."""
        level = logging.DEBUG if self._away else logging.WARNING
        self._away = True
        text = "the job server does not answer; this agent-runner goes on trying"
        logger.log(level, text, extra={"action": "server_away", "why": str(error)})

    async def _deliver_leftovers(self) -> None:
        """Deliver what an earlier process could not; before registering, because that ends its leases.

        All at once: their leases are renewed only by what is sent for each, and none may wait for a large one.
        """
        left = leftovers(self._config.spool_dir)
        tasks = [asyncio.create_task(self._deliver_leftover(lease, spool)) for lease, spool in left]
        try:
            await asyncio.gather(*tasks)
        except NotAdmittedError as error:
            # As at the first registration. The spools stay for a start that is let in.
            raise ServerRefusedError(str(error)) from error
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        await asyncio.to_thread(remove_orphans, self._config.spool_dir)

    async def _deliver_leftover(self, lease: Lease, spool: Spool) -> None:
        outcome = await asyncio.to_thread(spool.recover, lease)
        delivery = Delivery(self._client, lease, spool, lambda: None)
        delivered = await delivery.finish(outcome, until_admitted=False)
        action = "leftover_delivered" if delivered else "leftover_dropped"
        logger.info(
            action.replace("_", " "),
            extra={
                "action": action,
                "job_id": lease.job_id,
                "attempt": lease.attempt,
                "end_reason": str(outcome.end_reason) if outcome else "",
            },
        )
        spool.remove()

    def _lose_all(self) -> None:
        for attempt in self._attempts.values():
            attempt.control.stop(StopReason.LOST, 0)
        self.drain()

    async def _session(self, registration: Registration) -> None:
        active = self._held_leases()
        offer = self._offering.now
        stream = await self._client.work(active, self._draining, offer)
        self._stream = stream
        if self._offering.now != offer:
            await stream.offer(self._offering.now)
        if self._draining:
            # The hello may have been written before the drain began; saying it twice is harmless.
            await stream.drain()
        renewing = asyncio.create_task(self._renew(stream, registration.renew_s))
        try:
            async for message in stream.messages():
                try:
                    self._handle(message)
                except Exception:
                    # One message that hits a defect must not take the other attempts with it.
                    logger.exception("message not handled", extra={"action": "message_failed"})
        finally:
            self._stream = None
            renewing.cancel()
            await asyncio.wait([renewing])
            stream.close()

    async def _renew(self, stream: WorkStream, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s * random.uniform(0.8, 1.0))  # noqa: S311 - jitter
            if leases := self._held_leases():
                try:
                    await stream.renew(leases)
                except ServerUnavailableError:
                    return  # the reader of the same stream learns it and reconnects

    def _handle(self, message: Message) -> None:
        match message:
            case Assigned():
                self._start(message)
            case CancelAsked(lease=lease):
                if lease in self._attempts:
                    grace_s = self._config.cancel_grace_s
                    self._attempts[lease].control.stop(StopReason.CANCEL, grace_s)
            case LeaseEnded(lease=lease):
                if lease in self._attempts:
                    logger.warning(
                        "lease lost",
                        extra={
                            "action": "lease_lost",
                            "job_id": lease.job_id,
                            "attempt": lease.attempt,
                        },
                    )
                    self._attempts[lease].control.stop(StopReason.LOST, 0)
            case InspectionAsked():
                if self._stream is not None:
                    self._say(self._answer(self._stream, message))
            case Welcome():
                logger.info("connected", extra={"action": "server_connected"})

    async def _answer(self, stream: WorkStream, asked: InspectionAsked) -> None:
        unknown, processes = "the attempt has ended on its agent-runner", None
        if asked.lease in self._attempts:
            unknown = "the command has not been started yet: it waits for its slot, or its sandbox and source are prepared"
            processes = await self._attempts[asked.lease].processes()
        if processes is None:
            await stream.answer(Inspection(number=asked.number, unknown=unknown))
            return
        unknown = "" if processes else "the command has ended; its log and result are on their way"
        await stream.answer(Inspection(number=asked.number, processes=processes, unknown=unknown))

    def _start(self, assigned: Assigned) -> None:
        if assigned.lease in self._attempts:
            return
        attempt = LeasedAttempt(
            assigned, self._client, self._provider, self._secrets, self._config, self._ends
        )
        if self._draining:
            # It crossed our drain on the wire: give it back at once instead of starting it.
            attempt.control.stop(StopReason.INTERRUPT, 0)
        self._attempts[assigned.lease] = attempt
        self._tasks[assigned.lease] = asyncio.create_task(self._run(attempt))

    async def _run(self, attempt: LeasedAttempt) -> None:
        try:
            await attempt.run(self._slots)
        except Exception:
            logger.exception("attempt hit a defect", extra={"action": "attempt_crashed"})
        finally:
            del self._attempts[attempt.lease], self._tasks[attempt.lease]
            self._check_idle()

    def _offer(self, offer: Offer) -> None:
        if self._stream is not None:
            self._say(self._stream.offer(offer))

    def _check_idle(self) -> None:
        if not self._attempts:
            self._ends.rest()
            if self._draining:
                self._idle.set()

    def _say(self, saying: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(saying)
        self._saying.add(task)
        task.add_done_callback(self._said)

    def _said(self, task: asyncio.Task[None]) -> None:
        self._saying.discard(task)
        # A stream that has ended is reopened, and the hello says the same.
        if not task.cancelled() and task.exception() is not None:
            logger.debug("not said", extra={"action": "not_said", "why": str(task.exception())})

    async def _end_attempts(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._ends.close()
        await self._client.close()

    def _held_leases(self) -> list[Lease]:
        """Return the leases of what runs here or is to, without those that are known to be lost."""
        return [
            lease
            for lease, attempt in self._attempts.items()
            if attempt.control.reason is not StopReason.LOST
        ]
