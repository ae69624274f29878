"""DaemonClient over gRPC: the only place of this package, with ``wire``, that knows protobuf and statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn, cast

import grpc

from agent_runner import wire
from agent_runner.client import (
    Assigned,
    CancelAsked,
    Lease,
    LeaseEnded,
    Message,
    Registration,
    Welcome,
)
from agent_runner.errors import (
    AgentReplacedError,
    LeaseLostError,
    LogGapError,
    ServerRefusedError,
    ServerUnavailableError,
)
from agent_runner.outcome import Outcome, SandboxRecord
from runner.v1 import agent_service_pb2 as pb
from runner.v1 import agent_service_pb2_grpc as rpc

# gRPC waits a whole second before it dials again; at start the socket appears within milliseconds.
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 4 << 20),
    # A server that vanished without a word is noticed within 30 s; one that is idle may be asked.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CALL_TIMEOUT_S = 20.0
REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)


class GrpcDaemonClient:
    """One connection to the job server. Reconnects by itself; calls fail while it is away."""

    def __init__(self, endpoint: str, token: str, name: str, incarnation: str) -> None:
        self._channel = grpc.aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        # The generated class serves both kinds of channel; its typing knows them apart by name.
        self._stub = cast("rpc.AgentServiceAsyncStub", rpc.AgentServiceStub(self._channel))
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._agent = pb.AgentIdentity(name=name, incarnation=incarnation)

    async def register(
        self, slots: int, labels: dict[str, str], sandbox: SandboxRecord
    ) -> Registration:
        """Make this start of the agent-runner known."""
        request = pb.RegisterAgentRequest(
            agent=self._agent, slots=slots, labels=labels, sandbox=wire.sandbox_to_pb(sandbox)
        )
        try:
            response = await self._stub.RegisterAgent(
                request, metadata=self._metadata, timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            _raise(error)
        return Registration(renew_s=response.renew_interval.ToTimedelta().total_seconds())

    async def work(self, active: Sequence[Lease], draining: bool) -> GrpcWorkStream:
        """Open the Work stream."""
        call = self._stub.Work(metadata=self._metadata)
        hello = pb.WorkHello(
            agent=self._agent, active=[_lease_to_pb(lease) for lease in active], draining=draining
        )
        stream = GrpcWorkStream(call)
        await stream.write(pb.WorkRequest(hello=hello))
        return stream

    async def append_log(self, lease: Lease) -> GrpcLogStream:
        """Open an AppendLog stream for one attempt."""
        call = self._stub.AppendLog(metadata=self._metadata)
        stream = GrpcLogStream(call)
        await stream.write(pb.AppendLogRequest(lease=_lease_to_pb(lease)))
        return stream

    async def finish(
        self, lease: Lease, outcome: Outcome, log_offset: int, log_tail: bytes
    ) -> None:
        """Report the end of an attempt."""
        request = pb.FinishAttemptRequest(
            lease=_lease_to_pb(lease),
            end_reason=wire.end_reason_to_pb(outcome.end_reason),
            exit_code=outcome.exit_code,
            message=outcome.message,
            sandbox=wire.sandbox_to_pb(outcome.sandbox),
            log_offset=log_offset,
            log_tail=log_tail,
            log_bytes=outcome.log.length,
            log_sha256=outcome.log.sha256,
            log_truncated=outcome.log.truncated,
            interrupted=outcome.interrupted,
        )
        try:
            await self._stub.FinishAttempt(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            _raise(error)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


class GrpcWorkStream:
    """A Work stream over gRPC."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the server says."""
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                message = _message(response)
                if message is not None:
                    yield message
        except grpc.aio.AioRpcError as error:
            _raise(error)
        raise ServerUnavailableError("the job server ended the stream")

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Renew leases."""
        renewal = pb.RenewLeases(leases=[_lease_to_pb(lease) for lease in leases])
        await self.write(pb.WorkRequest(renew=renewal))

    async def drain(self) -> None:
        """Ask for no more assignments."""
        await self.write(pb.WorkRequest(drain=pb.WorkDrain()))

    async def write(self, request: pb.WorkRequest) -> None:
        """Send one message."""
        await _write(self._call, request)

    def close(self) -> None:
        """End the stream at once."""
        self._call.cancel()


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
            _raise(error)

    async def end(self) -> None:
        """Say that nothing follows."""
        try:
            await self._call.done_writing()
        except grpc.aio.AioRpcError as error:
            _raise(error)
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            raise ServerUnavailableError("the stream to the job server has ended") from error

    async def write(self, request: pb.AppendLogRequest) -> None:
        """Send one message."""
        await _write(self._call, request)

    def close(self) -> None:
        """End the stream at once."""
        self._call.cancel()


async def _write(call: Any, request: Any) -> None:
    try:
        await call.write(request)
    except grpc.aio.AioRpcError as error:
        _raise(error)
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        # Both are grpc.aio's words for a call that has already ended; its status is read by the other side.
        raise ServerUnavailableError("the stream to the job server has ended") from error


def _message(response: pb.WorkResponse) -> Message | None:
    kind = response.WhichOneof("message")
    if kind == "assignment":
        spec = wire.job_spec_from_pb(response.assignment.spec)
        return Assigned(lease=_lease_from_pb(response.assignment.lease), spec=spec)
    if kind == "cancel":
        return CancelAsked(lease=_lease_from_pb(response.cancel.lease))
    if kind == "lease_lost":
        return LeaseEnded(lease=_lease_from_pb(response.lease_lost))
    if kind == "welcome":
        return Welcome()
    return None  # a newer server says something that this agent-runner does not know


def _lease_to_pb(lease: Lease) -> pb.LeaseRef:
    return pb.LeaseRef(job_id=lease.job_id, attempt=lease.attempt, lease_token=lease.token)


def _lease_from_pb(lease: pb.LeaseRef) -> Lease:
    return Lease(job_id=lease.job_id, attempt=lease.attempt, token=lease.lease_token)


def _raise(error: grpc.aio.AioRpcError) -> NoReturn:
    """Turn a status into an error of this package. The reason trailer decides before the code does."""
    trailers = dict(error.trailing_metadata() or ())
    reason = trailers.get("reason", "")
    text = f"{error.code().name}: {error.details()}"
    if reason == AgentReplacedError.reason:
        raise AgentReplacedError(text) from error
    if reason == LeaseLostError.reason:
        raise LeaseLostError(text) from error
    if reason == LogGapError.reason:
        raise LogGapError(int(str(trailers.get("acknowledged-offset", "0")))) from error
    if error.code() in REFUSED:
        raise ServerRefusedError(text) from error
    raise ServerUnavailableError(text) from error
