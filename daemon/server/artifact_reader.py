"""The reading half of the outputs API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from agent_runner import wire
from agent_runner.outcome import OutputFile
from daemon.artifacts.blob_store import BlobStore
from daemon.errors import ArtifactNotFoundError, AttemptNotFoundError, UsageError
from daemon.jobs.store import JobStore
from runner.v1 import job_service_pb2 as pb

PIECE_BYTES = 512 << 10


class ArtifactReader:
    """One per server."""

    def __init__(self, store: JobStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    async def list(self, request: pb.ListArtifactsRequest) -> pb.ListArtifactsResponse:
        """Return the outputs of an attempt.

        Raises:
            JobNotFoundError: No such job.
            AttemptNotFoundError: The job has no such attempt.
            UsageError: The attempt is negative.
        """
        number = await self._number(request.job_id, request.attempt)
        files = await self._store.artifacts(request.job_id, number)
        attempts = await self._store.attempts(request.job_id)
        error = attempts[number - 1].outputs_error if 0 < number <= len(attempts) else ""
        return pb.ListArtifactsResponse(
            attempt=number, artifacts=wire.output_files_to_pb(files), outputs_error=error
        )

    async def read(
        self, request: pb.ReadArtifactRequest
    ) -> AsyncGenerator[pb.ReadArtifactResponse, None]:
        """Yield the content of one output from an offset.

        Raises:
            ArtifactNotFoundError: The attempt left no output of this name.
            StoreUnusableError: The content cannot be read.
            UsageError: A number is negative.
            JobNotFoundError, AttemptNotFoundError: As ``list``.
        """
        if request.offset < 0:
            raise UsageError("offset must not be negative")
        file = await self._file(request)
        project = (await self._store.get(request.job_id)).spec.project
        offset, first = request.offset, True
        while first or offset < file.size:
            data = await asyncio.to_thread(
                self._blobs.read, project, file.sha256, offset, PIECE_BYTES
            )
            (described,) = wire.output_files_to_pb([file]) if first else (None,)
            yield pb.ReadArtifactResponse(artifact=described, offset=offset, data=data)
            if not data:
                return
            offset, first = offset + len(data), False

    async def _file(self, request: pb.ReadArtifactRequest) -> OutputFile:
        number = await self._number(request.job_id, request.attempt)
        for file in await self._store.artifacts(request.job_id, number):
            if file.name == request.name:
                return file
        raise ArtifactNotFoundError(
            f"attempt {number} of job {request.job_id} left no output named {request.name!r}"
        )

    async def _number(self, job_id: str, attempt: int) -> int:
        if attempt < 0:
            raise UsageError("attempt must not be negative")
        job = await self._store.get(job_id)
        if attempt > job.attempt:
            raise AttemptNotFoundError(f"job {job_id} has {job.attempt} attempts so far")
        return attempt or job.attempt
