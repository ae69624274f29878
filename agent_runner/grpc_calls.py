"""What every gRPC call of an agent-runner shares: leases on the wire, sending, and statuses as errors of this package."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc

from agent_runner.channels import tls_problem
from agent_runner.client import Lease
from agent_runner.errors import (
    AgentReplacedError,
    ArtifactNotWrittenError,
    InputMissingError,
    LeaseLostError,
    LogGapError,
    NotAdmittedError,
    ServerRefusedError,
    ServerUnavailableError,
)
from runner.v1 import agent_service_pb2 as pb

REFUSED = (
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)
NOT_ADMITTED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


async def send(call: Any, request: Any) -> None:
    """Send one message on a stream.

    Raises:
        ServerUnavailableError: The stream has ended; or as ``raise_status``.
    """
    try:
        await call.write(request)
    except grpc.aio.AioRpcError as error:
        raise_status(error)
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        # Both are grpc.aio's words for a call that has already ended; its status is read by the other side.
        raise ServerUnavailableError("the stream to the job server has ended") from error


def lease_to_pb(lease: Lease) -> pb.LeaseRef:
    """Return the message of a lease."""
    return pb.LeaseRef(job_id=lease.job_id, attempt=lease.attempt, lease_token=lease.token)


def lease_from_pb(lease: pb.LeaseRef) -> Lease:
    """Return the lease that a message names."""
    return Lease(job_id=lease.job_id, attempt=lease.attempt, token=lease.lease_token)


def raise_status(error: grpc.aio.AioRpcError) -> NoReturn:
    """Turn a status into an error of this package. The reason trailer decides before the code does."""
    trailers = dict(error.trailing_metadata() or ())
    reason = trailers.get("reason", "")
    text = f"{error.code().name}: {error.details()}"
    if reason == AgentReplacedError.reason:
        raise AgentReplacedError(text) from error
    if reason == LeaseLostError.reason:
        raise LeaseLostError(text) from error
    if reason == InputMissingError.reason:
        raise InputMissingError(error.details() or reason) from error
    if reason == ArtifactNotWrittenError.reason:
        raise ArtifactNotWrittenError(error.details() or reason) from error
    if reason == LogGapError.reason:
        raise LogGapError(int(str(trailers.get("acknowledged-offset", "0")))) from error
    if error.code() in REFUSED:
        raise ServerRefusedError(text) from error
    if error.code() in NOT_ADMITTED:
        raise NotAdmittedError(text) from error
    if problem := tls_problem(error.details() or ""):
        raise NotAdmittedError(f"no TLS with the job server: {problem}") from error
    raise ServerUnavailableError(text) from error
