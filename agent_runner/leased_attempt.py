"""One assignment on its way through this agent-runner: run it, ship its log, report its end exactly once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from agent_runner.attempt_control import AttemptControl, StopReason
from agent_runner.client import Assigned, DaemonClient
from agent_runner.config import AgentRunnerConfig
from agent_runner.delivery import Delivery
from agent_runner.ends import Ends
from agent_runner.executor import AttemptRequest, AttemptRun
from agent_runner.outcome import EndReason, Outcome
from agent_runner.outputs_spec import OutputsPlace
from agent_runner.secret_source import SecretSource
from agent_runner.slots import Slots
from agent_runner.spool import Spool
from sandbox.base import LiveProcess, SandboxProvider, Tier

logger = logging.getLogger(__name__)


class LeasedAttempt:
    """One lease and everything that hangs on it. ``run`` once; it ends only by a report, a lost lease or a cancellation."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one attempt
        self,
        assigned: Assigned,
        client: DaemonClient,
        provider: SandboxProvider,
        secrets: SecretSource,
        config: AgentRunnerConfig,
        ends: Ends,
    ) -> None:
        self.lease = assigned.lease
        self.control = AttemptControl()
        self._spec = config.containers.placed(assigned.spec)
        self._client = client
        self._provider = provider
        self._secrets = secrets
        self._config = config
        self._ends = ends
        self._running: AttemptRun | None = None
        self._settled = False
        """Nothing of it is to be delivered any more."""
        self._cleaned = False
        self._fields = {"job_id": self.lease.job_id, "attempt": self.lease.attempt}

    async def run(self, slots: Slots) -> None:
        """Do all of it, or nothing if it does not get a slot. A cancellation leaves the spool for the next start."""
        has_slot = await slots.take(self.control)
        if not has_slot and self.control.reason is None:
            self.control.stop(StopReason.RETURN, 0)
        try:
            await self._run(slots)
        finally:
            slots.leave(self.control)

    async def _run(self, slots: Slots) -> None:
        try:
            spool, problem = self._make_spool(), None
        except OSError as error:
            spool, problem = Spool.without_disk(), error
        delivery = Delivery(self._client, self.lease, spool, self._lose)
        attempt = AttemptRun(
            self._provider, self._request(spool), self._secrets, spool, self.control
        )
        self._running = attempt
        try:
            if problem is None:
                delivery.begin()
                outcome = await self._execute(attempt, spool)
                self._seal(spool, outcome)
            else:
                outcome = _disk_failure(problem, spool)
            await self._settle(outcome, delivery, attempt, slots)
            self._log_end(outcome)
        finally:
            await delivery.stop()
            if not self._cleaned:
                await asyncio.shield(self._clean_up(attempt, slots))
            if self._settled:
                spool.remove()
                if self._spec.outputs.paths:
                    await asyncio.to_thread(spool.remove_outputs)
            else:
                spool.release()

    async def _settle(
        self, outcome: Outcome, delivery: Delivery, attempt: AttemptRun, slots: Slots
    ) -> None:
        """Bring the end to the server, which may be away for long, and clean up meanwhile."""
        slots.end(self.control)
        # While others wait here for a slot, nobody waits for what this end brings but who asked for the job.
        urgent = not slots.wanted
        if self.control.reason is StopReason.LOST:
            self._settled = True
            await self._clean_up(attempt, slots)
        else:
            delivery.report(outcome, urgent=urgent)
            # Behind the report, which somebody waits for; beside its delivery, because either may take long.
            cleaning = asyncio.create_task(self._clean_up(attempt, slots))
            await delivery.finish(outcome)
            self._settled = True
            await cleaning

    def _make_spool(self) -> Spool:
        leaves_files = self._spec.outputs.paths or self._spec.cache
        ends = None if leaves_files else self._ends
        return Spool.create(self._config.spool_dir, self.lease, ends)

    def _request(self, spool: Spool) -> AttemptRequest:
        outputs = None
        wanted = self._spec.outputs.paths or self._spec.cache
        if wanted and (folder := spool.outputs) is not None:
            outputs = OutputsPlace(
                folder, self._config.max_output_bytes, cache_dir=self._config.cache_dir
            )
        inputs = None
        if self._spec.inputs:
            from agent_runner.outputs.handing_on import ServerInputs  # noqa: PLC0415 - few have any

            inputs = ServerInputs(self._client, self.lease)
        return AttemptRequest(
            job_id=self.lease.job_id,
            attempt=self.lease.attempt,
            spec=self._spec,
            source_dir=self._config.source_dir,
            outputs=outputs,
            inputs=inputs,
        )

    async def processes(self) -> list[LiveProcess] | None:
        """Return what runs now, masked; None if the command does not run yet."""
        return None if self._running is None else await self._running.processes()

    async def _execute(self, attempt: AttemptRun, spool: Spool) -> Outcome:
        try:
            return await attempt.run()
        except OSError as error:
            logger.exception(
                "attempt failed on this host", extra={"action": "attempt_failed", **self._fields}
            )
            return _disk_failure(error, spool)
        except Exception:
            logger.exception(
                "attempt hit a defect", extra={"action": "attempt_crashed", **self._fields}
            )
            return Outcome(
                end_reason=EndReason.SANDBOX_FAILED,
                message="internal error of the agent-runner; see agent-runner.log",
                log=spool.summary(),
            )

    def _seal(self, spool: Spool, outcome: Outcome) -> None:
        try:
            spool.seal(self.lease, outcome)
        except OSError:
            # It is still in memory; only a crash before the report would lose it now.
            logger.exception("result not stored", extra={"action": "seal_failed", **self._fields})

    async def _clean_up(self, attempt: AttemptRun, slots: Slots) -> None:
        try:
            await attempt.clean_up()
        except Exception:
            # The provider tries again when it is closed, and the next start removes what is left.
            logger.exception(
                "sandbox not removed", extra={"action": "clean_up_failed", **self._fields}
            )
        self._cleaned = True
        # Whoever waits for it need not wait until the server knows this end.
        slots.leave(self.control)

    def _lose(self) -> None:
        self.control.stop(StopReason.LOST, 0)

    def _log_end(self, outcome: Outcome) -> None:
        tier = outcome.sandbox.tier
        # The provider warns of its first sandbox without walls, before the command; one line for each job is enough.
        plain = tier == Tier.PLAIN.label
        logger.log(
            logging.WARNING if plain else logging.INFO,
            "attempt finished, without walls" if plain else "attempt finished",
            extra={
                "action": "attempt_finished",
                "tier": tier,
                "end_reason": str(outcome.end_reason),
                "exit_code": str(outcome.exit_code),
                **self._fields,
            },
        )


def _disk_failure(error: OSError, spool: Spool) -> Outcome:
    # A full disk is often full of this very log, and the server's end may lie on it too.
    spool.cut_back()
    return Outcome(
        end_reason=EndReason.SANDBOX_FAILED,
        message=f"the agent-runner's disk failed: {error.strerror or error}",
        log=replace(spool.summary(), truncated="disk_full"),
    )
