"""DaemonClient over gRPC: with ``wire`` and the other modules of this name the only place of this package that knows protobuf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import grpc

from agent_runner import wire
from agent_runner.channels import only_closed, open_channel
from agent_runner.client import Lease, Registration
from agent_runner.errors import ServerUnavailableError
from agent_runner.grpc_calls import lease_to_pb, raise_status, send
from agent_runner.grpc_work_stream import GrpcWorkStream, offer_to_pb
from agent_runner.job_inputs import InputPiece
from agent_runner.offering import EVERYTHING, Offer
from agent_runner.outcome import Outcome, SandboxRecord
from agent_runner.server_link import ServerLink
from runner.v1 import agent_service_pb2 as pb
from runner.v1 import agent_service_pb2_grpc as rpc

# gRPC waits a whole second before it dials again; at start the socket appears within milliseconds. The least back-off is not set:
# gRPC takes it for the time in which a connection must be there, and a busy server, or one far away, needs longer.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 4 << 20),
    # As the server has it: no ping for what comes after a rest, so a fixed window.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # A server that vanished without a word is noticed within 30 s; one that is idle may be asked.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CALL_TIMEOUT_S = 20.0


class GrpcDaemonClient:
    """One connection to the job server. Reconnects by itself; calls fail while it is away."""

    def __init__(
        self,
        server: ServerLink,
        token: str,
        name: str,
        incarnation: str,
        projects: Sequence[str] = (),
    ) -> None:
        """Connects when it is used; ``projects`` as in ``AgentRunnerConfig``.

        Raises:
            InvalidConfigError: The token would go over a network in clear, or the files for TLS are unusable.
        """
        self._server = server
        self._channel = open_channel(server, CHANNEL_OPTIONS)
        # The generated class serves both kinds of channel; its typing knows them apart by name.
        self._stub = cast("rpc.AgentServiceAsyncStub", rpc.AgentServiceStub(self._channel))
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._agent = pb.AgentIdentity(name=name, incarnation=incarnation)
        self._projects = projects
        self._work: GrpcWorkStream | None = None

    async def register(
        self, slots: int, labels: dict[str, str], sandbox: SandboxRecord
    ) -> Registration:
        """Make this start of the agent-runner known."""
        request = pb.RegisterAgentRequest(
            agent=self._agent,
            slots=slots,
            labels=labels,
            sandbox=wire.sandbox_to_pb(sandbox),
            projects=self._projects,
        )
        try:
            response = await self._stub.RegisterAgent(
                request, metadata=self._metadata, timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if hint := only_closed(self._server, error.details() or ""):
                raise ServerUnavailableError(f"it closed the connection: {hint}") from error
            raise_status(error)
        return Registration(renew_s=response.renew_interval.ToTimedelta().total_seconds())

    async def work(
        self, active: Sequence[Lease], draining: bool, offer: Offer = EVERYTHING
    ) -> GrpcWorkStream:
        """Open the Work stream; what ended meanwhile is reported on it from now on."""
        call = self._stub.Work(metadata=self._metadata)
        hello = pb.WorkHello(
            agent=self._agent,
            active=[lease_to_pb(lease) for lease in active],
            draining=draining,
            offer=None if offer == EVERYTHING else offer_to_pb(offer),
            look_ahead=True,
        )
        await send(call, pb.WorkRequest(hello=hello))
        self._work = GrpcWorkStream(call)
        return self._work

    async def append_log(self, lease: Lease) -> GrpcLogStream:
        """Open an AppendLog stream for one attempt."""
        call = self._stub.AppendLog(metadata=self._metadata)
        stream = GrpcLogStream(call)
        await stream.write(pb.AppendLogRequest(lease=lease_to_pb(lease)))
        return stream

    async def store_contents(self, lease: Lease, contents: Mapping[str, Path]) -> None:
        """Bring the contents of outputs to the server."""
        # Few jobs have outputs, and an agent-runner that rests is to be small.
        from agent_runner.grpc_upload import upload  # noqa: PLC0415

        await upload(self._stub.UploadArtifact(metadata=self._metadata), lease, contents)

    async def read_inputs(self, lease: Lease) -> AsyncGenerator[InputPiece, None]:
        """Yield the outputs of other jobs that the job of an attempt asks for."""
        request = pb.ReadInputsRequest(lease=lease_to_pb(lease))
        try:
            async for answer in self._stub.ReadInputs(request, metadata=self._metadata):
                files = [answer.artifact] if answer.HasField("artifact") else []
                (file,) = wire.output_files_from_pb(files) or (None,)
                yield InputPiece(answer.job_name, file, answer.data)
        except grpc.aio.AioRpcError as error:
            raise_status(error)

    def report(
        self,
        lease: Lease,
        outcome: Outcome,
        log_offset: int,
        log_tail: bytes,
        *,
        urgent: bool = True,
    ) -> asyncio.Future[bool]:
        """Put the end of an attempt on the Work stream."""
        if self._work is None:
            unknown: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            unknown.set_result(False)
            return unknown
        request = _report(lease, outcome, log_offset, log_tail)
        return self._work.report(lease, request, urgent=urgent)

    async def finish(
        self, lease: Lease, outcome: Outcome, log_offset: int, log_tail: bytes
    ) -> None:
        """Report the end of an attempt by a call, which says why it is refused."""
        request = _report(lease, outcome, log_offset, log_tail)
        try:
            await self._stub.FinishAttempt(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise_status(error)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


def _report(
    lease: Lease, outcome: Outcome, log_offset: int, log_tail: bytes
) -> pb.FinishAttemptRequest:
    """Return the message of an end."""
    report = pb.FinishAttemptRequest(
        lease=lease_to_pb(lease),
        end_reason=wire.end_reason_to_pb(outcome.end_reason),
        exit_code=outcome.exit_code,
        sandbox=wire.sandbox_to_pb(outcome.sandbox),
        log_offset=log_offset,
        log_tail=log_tail,
        log_bytes=outcome.log.length,
        log_sha256=outcome.log.sha256,
        log_truncated=outcome.log.truncated,
        message=outcome.message,
        interrupted=outcome.interrupted,
        returned=outcome.returned,
        workflow_output=outcome.workflow_output,
        outputs_error=outcome.outputs.error,
        source=wire.source_record_to_pb(outcome.source),
        triggers=wire.triggers_to_pb(outcome.triggers),
    )
    if outcome.outputs.files:
        report.outputs.extend(wire.output_files_to_pb(outcome.outputs.files))
    return report


class GrpcLogStream:
    """An AppendLog stream over gRPC."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, offset: int, data: bytes) -> None:
        """Send bytes."""
        await self.write(pb.AppendLogRequest(offset=offset, data=data))

    async def acknowledgements(self) -> AsyncIterator[int]:
        """Yield how much the server has."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                yield response.acknowledged_offset
        except grpc.aio.AioRpcError as error:
            raise_status(error)

    async def end(self) -> None:
        """Say that nothing follows."""
        try:
            await self._call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise_status(error)
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ServerUnavailableError("the stream to the job server has ended") from error

    async def write(self, request: pb.AppendLogRequest) -> None:
        """Send one message."""
        await send(self._call, request)

    def close(self) -> None:
        """End the stream at once."""
        self._call.cancel()
