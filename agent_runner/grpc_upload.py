"""The contents of outputs on their way to the server, over gRPC."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from agent_runner.client import Lease
from agent_runner.errors import ServerUnavailableError
from agent_runner.grpc_calls import lease_to_pb, raise_status, send
from runner.v1 import agent_service_pb2 as pb

PIECE_BYTES = 512 << 10


async def upload(call: Any, lease: Lease, contents: Mapping[str, Path]) -> None:
    """Send on an UploadArtifact stream what the server does not have; returns when it has everything.

    Raises:
        OSError: A content cannot be read.
        ServerUnavailableError: The stream has ended; or as ``raise_status``.
    """
    try:
        request = pb.UploadArtifactRequest(lease=lease_to_pb(lease), digests=sorted(contents))
        await send(call, request)
        missing = list((await _answer(call)).missing)
        # Answered while the next ones are sent: a small content costs no round trip of its own.
        storing = asyncio.create_task(_stored(call, len(missing)))
        try:
            for sha256 in missing:
                async for piece in _pieces(sha256, contents[sha256]):
                    await _send(call, piece, storing)
            await call.done_writing()
            await storing
        finally:
            storing.cancel()
            await asyncio.wait([storing])
    except grpc.aio.AioRpcError as error:
        raise_status(error)
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        raise ServerUnavailableError("the stream to the job server has ended") from error
    finally:
        call.cancel()


async def _send(call: Any, piece: pb.UploadArtifactRequest, storing: asyncio.Task[None]) -> None:
    """Send one message; the reason for which a stream has ended is that of its other side."""
    try:
        await send(call, piece)
    except ServerUnavailableError:
        await storing
        raise


async def _answer(call: Any) -> pb.UploadArtifactResponse:
    response = await call.read()
    if response is grpc.aio.EOF:
        raise ServerUnavailableError("the job server ended the stream of outputs")
    assert isinstance(response, pb.UploadArtifactResponse)  # noqa: S101 - what the method returns
    return response


async def _stored(call: Any, count: int) -> None:
    for _ in range(count):
        await _answer(call)


async def _pieces(sha256: str, path: Path) -> AsyncIterator[pb.UploadArtifactRequest]:
    """Yield the messages of one content; a small one is a single one."""
    fd, size, data = await asyncio.to_thread(_begun, path)
    try:
        yield pb.UploadArtifactRequest(sha256=sha256, size_bytes=size, data=data)
        sent = len(data)
        while sent < size:
            data = await asyncio.to_thread(os.read, fd, PIECE_BYTES)
            if not data:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            yield pb.UploadArtifactRequest(data=data)
            sent += len(data)
    finally:
        os.close(fd)


def _begun(path: Path) -> tuple[int, int, bytes]:
    """Return a descriptor of a content, its size and its first bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return fd, os.fstat(fd).st_size, os.read(fd, PIECE_BYTES)
    except OSError:
        os.close(fd)
        raise
