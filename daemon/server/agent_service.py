"""AgentService: the calls of agent-runners."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from agent_runner import wire
from agent_runner.offering import MAX_SLOTS
from agent_runner.outcome import EndReason, Outcome
from daemon.errors import LeaseLostError, UsageError
from daemon.jobs.models import Job, LeaseRef, NewJob
from daemon.jobs.states import JobState
from daemon.jobs.store import JobStore
from daemon.server.agent_session import AgentSession
from daemon.server.artifact_intake import ArtifactIntake, check_files
from daemon.server.caller import CALLER
from daemon.server.completions import Completions
from daemon.server.config import ServerConfig
from daemon.server.convert import agent_from_pb, lease_from_pb
from daemon.server.dispatcher import Dispatcher
from daemon.server.input_reader import InputReader
from daemon.server.inspection import Inspections
from daemon.server.lease_keeper import LeaseKeeper
from daemon.server.log_writer import LogWriter
from daemon.server.read_ahead import ReadAhead
from daemon.server.signals import Signals
from daemon.server.work_stream import WorkStream
from runner.v1 import agent_service_pb2 as pb
from runner.v1 import agent_service_pb2_grpc as rpc

logger = logging.getLogger(__name__)

MAX_LEASES = 10_000
MAX_MESSAGE_CHARS = 4000
ACKNOWLEDGED_BYTES = 1 << 20
"""Of a log that comes without a pause this much is acknowledged at once, a quarter of what may be under way."""
SHA256 = re.compile(r"([0-9a-f]{64})?")

Requests = AsyncIterator[Any]


class AgentServicer(rpc.AgentServiceServicer):
    """One per server. The interceptor has checked the token and turns errors into statuses."""

    def __init__(  # noqa: PLR0913 - the parts of one server, joined once
        self,
        *,
        config: ServerConfig,
        store: JobStore,
        log_writer: LogWriter,
        dispatcher: Dispatcher,
        inspections: Inspections,
        artifacts: ArtifactIntake,
        inputs: InputReader,
        leases: LeaseKeeper,
        signals: Signals,
        completions: Completions,
    ) -> None:
        self._config = config
        self._store = store
        self._log_writer = log_writer
        self._dispatcher = dispatcher
        self._inspections = inspections
        self._artifacts = artifacts
        self._inputs = inputs
        self._lease_keeper = leases
        self._signals = signals
        self._completions = completions

    async def RegisterAgent(
        self, request: pb.RegisterAgentRequest, context: Any
    ) -> pb.RegisterAgentResponse:
        """Make a start of an agent-runner known; called once per connection."""
        agent = CALLER.get().agent(agent_from_pb(request.agent))
        projects = CALLER.get().among(request.projects)
        if not 0 < request.slots <= MAX_SLOTS:
            raise UsageError(f"slots must be 1 to {MAX_SLOTS}")
        await self._completions.run(
            self._dispatcher.register(agent, request.slots, dict(request.labels), projects)
        )
        self._dispatcher.session(agent).tier = request.sandbox.tier
        logger.info(
            "an agent-runner has registered",
            extra={"action": "agent_registered", "agent": agent.name, "slots": request.slots},
        )
        return pb.RegisterAgentResponse(
            lease_duration=wire.duration_to_pb(self._config.lease_s),
            renew_interval=wire.duration_to_pb(self._config.renew_s),
        )

    async def Work(
        self, request_iterator: Requests, context: Any
    ) -> AsyncIterator[pb.WorkResponse]:
        """Push assignments and cancels, take renewals; one call for as long as a connection lasts."""
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("hello"):
            raise UsageError("the first message of Work must be hello")
        hello: pb.WorkHello = first.hello
        session = self._dispatcher.session(CALLER.get().agent(agent_from_pb(hello.agent)))
        active = _leases(hello.active)
        stream = WorkStream()
        listening = None
        try:
            await self._completions.run(self._dispatcher.attach(session, stream, active, hello))
            listening = asyncio.create_task(self._listen(request_iterator, session, stream))
            while (response := await self._dispatcher.next(session, stream)) is not None:
                yield response
            if listening.done():
                listening.result()
        finally:
            if listening is not None and not listening.cancel() and not listening.cancelled():
                listening.exception()  # seen here, or the loop reports it as forgotten
            self._inspections.disconnected(stream)
            self._dispatcher.detach(session, stream)

    async def AppendLog(
        self, request_iterator: Requests, context: Any
    ) -> AsyncIterator[pb.AppendLogResponse]:
        """Append pieces of one log; called once per connection for every log that outgrows a message."""
        first: pb.AppendLogRequest | None = await anext(request_iterator, None)
        if first is None:
            return
        lease = lease_from_pb(first.lease)
        with self._log_writer.holding(lease):
            await self._store.check_lease(lease)
            due_us = await self._lease_keeper.heard(lease, 0)
            length = told = await self._log_writer.append(lease, first.offset, first.data)
            yield pb.AppendLogResponse(acknowledged_offset=length)
            async with aclosing(ReadAhead(request_iterator)) as requests:
                async for request in requests:
                    due_us = await self._lease_keeper.heard(lease, due_us)
                    length = await self._log_writer.append(lease, request.offset, request.data)
                    if length - told >= ACKNOWLEDGED_BYTES or not requests.waiting:
                        yield pb.AppendLogResponse(acknowledged_offset=length)
                        told = length

    async def UploadArtifact(
        self, request_iterator: Requests, context: Any
    ) -> AsyncIterator[pb.UploadArtifactResponse]:
        """Take the contents of outputs of one attempt; called once or more per attempt that has outputs."""
        async with aclosing(self._artifacts.receive(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def ReadInputs(
        self, request: pb.ReadInputsRequest, context: Any
    ) -> AsyncIterator[pb.ReadInputsResponse]:
        """Return the outputs of other jobs that the job of an attempt asks for; called once per attempt with inputs."""
        async with aclosing(self._inputs.read(lease_from_pb(request.lease))) as responses:
            async for response in responses:
                yield response

    async def FinishAttempt(
        self, request: pb.FinishAttemptRequest, context: Any
    ) -> pb.FinishAttemptResponse:
        """End an attempt; called where the Work stream could not, until it is answered."""
        await self._completions.run(self._end(request))
        return pb.FinishAttemptResponse()

    async def _end_reported(self, stream: WorkStream, report: pb.FinishAttemptRequest) -> None:
        try:
            await self._end(report)
        except Exception:  # noqa: BLE001 - the call that repeats it says why
            stream.refuse(report.lease)
        else:
            stream.accept(report.lease)

    async def _end(self, request: pb.FinishAttemptRequest) -> None:
        lease = lease_from_pb(request.lease)
        outcome = _outcome(request)
        offset, tail = request.log_offset, request.log_tail
        # Held until the end is stored, so that nothing is added to what is reported.
        with self._log_writer.holding(lease):
            # A report that comes a second time finds its lease ended: it adds nothing to the log, and
            # the store decides what it is worth.
            if self._dispatcher.holds(lease) or await self._is_held(lease):
                if outcome.outputs.files:
                    await self._artifacts.check_stored(lease.job_id, outcome.outputs.files)
                outcome = await self._log_writer.complete(lease, outcome, offset, tail)
            else:
                outcome = await self._log_writer.with_hash(lease, outcome)
            await self._finish(lease, outcome)

    async def _is_held(self, lease: LeaseRef) -> bool:
        try:
            await self._store.check_lease(lease)
        except LeaseLostError:
            return False
        return True

    async def _finish(self, lease: LeaseRef, outcome: Outcome) -> None:
        # The slot is free whatever the store says, so its next claim can share the commit of this end.
        self._dispatcher.finished(lease, outcome)
        following: Sequence[NewJob] = ()
        if outcome.triggers is not None or outcome.workflow_output:
            # Late, because it imports pydantic and a YAML parser.
            from daemon.triggers.following import with_following  # noqa: PLC0415

            outcome, following = await with_following(self._store, lease.job_id, outcome)
        await self._store.finish(lease, outcome, following, partial(self._ended, lease))

    def _ended(self, lease: LeaseRef, job: Job) -> None:
        self._log_writer.close(lease)
        self._signals.job_changed(lease.job_id)
        if job.state is JobState.PENDING:
            self._dispatcher.stir()
        logger.debug(
            "an attempt has ended",
            extra={
                "action": "attempt_finished",
                "job_id": lease.job_id,
                "attempt": lease.attempt,
                "state": job.state,
            },
        )

    async def _listen(self, requests: Requests, session: AgentSession, stream: WorkStream) -> None:
        try:
            async for request in requests:
                if request.HasField("hello"):
                    raise UsageError("hello must be the first message of Work and only there")
                if request.drain:
                    self._dispatcher.drain(session)
                if request.HasField("offer"):
                    self._dispatcher.limit(session, request.offer)
                if request.processes:
                    self._inspections.answered(stream, request.processes)
                # Not awaited: what else the agent-runner says must not wait for the disk. The ends of one
                # message share one commit, also with the claims for their slots.
                for report in request.reports:
                    self._completions.start(self._end_reported(stream, report))
                if request.renew:
                    await self._dispatcher.renew(session, stream, _leases(request.renew))
        finally:
            stream.end()


def _leases(messages: Sequence[pb.LeaseRef]) -> list[LeaseRef]:
    if len(messages) > MAX_LEASES:
        raise UsageError(f"at most {MAX_LEASES} leases fit into one message")
    return [lease_from_pb(message) for message in messages]


def _outcome(request: pb.FinishAttemptRequest) -> Outcome:
    reason = wire.end_reason_from_pb(request.end_reason)
    if reason is None:
        raise UsageError("end_reason must say why the attempt ended")
    if reason is EndReason.EXITED and not request.HasField("exit_code"):
        raise UsageError("exit_code must be set when end_reason is EXITED")
    if not SHA256.fullmatch(request.log_sha256):
        raise UsageError("log_sha256 must be 64 lower-case hexadecimal digits or empty")
    if len(request.message) > MAX_MESSAGE_CHARS:
        request.message = request.message[:MAX_MESSAGE_CHARS]
    if request.log_offset < 0 or request.log_bytes < 0:
        raise UsageError("log_offset and log_bytes must not be negative")
    request.outputs_error = request.outputs_error[:MAX_MESSAGE_CHARS]
    outcome = wire.outcome_from_pb(request, reason)
    if outcome.outputs.files:
        check_files(outcome.outputs.files)
    return outcome
