"""The outputs that a job asks for as its inputs, for the agent-runner that runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from agent_runner import wire
from agent_runner.errors import InputMissingError, SourceError
from agent_runner.job_inputs import chosen
from agent_runner.outcome import OutputFile
from daemon.artifacts.blob_store import BlobStore
from daemon.errors import JobNotFoundError
from daemon.jobs.models import Job, LeaseRef
from daemon.jobs.store import JobStore
from runner.v1 import agent_service_pb2 as pb

PIECE_BYTES = 512 << 10


class InputReader:
    """One per server."""

    def __init__(self, store: JobStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    async def read(self, lease: LeaseRef) -> AsyncGenerator[pb.ReadInputsResponse, None]:
        """Yield the outputs of the last attempts of the jobs that the job of a lease names.

        Raises:
            LeaseLostError: The lease is not held.
            InputMissingError: It depends on no job of a name, or that is not kept any more.
            StoreUnusableError: A content cannot be read.
        """
        await self._store.check_lease(lease)
        job = await self._store.get(lease.job_id)
        jobs = await self._dependencies(job)
        try:
            ids = chosen(job.spec.inputs, [(one.id, one.spec.name) for one in jobs.values()])
        except SourceError as error:
            raise InputMissingError(str(error)) from None
        for job_id in ids:
            yield pb.ReadInputsResponse(job_name=jobs[job_id].spec.name)
            for file in await self._store.artifacts(job_id, jobs[job_id].attempt):
                async for piece in self._file(job.spec.project, file):
                    yield piece

    async def _dependencies(self, job: Job) -> dict[str, Job]:
        found = {}
        for job_id in job.spec.depends_on:
            try:
                found[job_id] = await self._store.get(job_id)
            except JobNotFoundError:  # removed since
                continue
        return found

    async def _file(
        self, project: str, file: OutputFile
    ) -> AsyncGenerator[pb.ReadInputsResponse, None]:
        (described,) = wire.output_files_to_pb([file])
        yield pb.ReadInputsResponse(artifact=described)
        offset = 0
        while offset < file.size:
            data = await asyncio.to_thread(
                self._blobs.read, project, file.sha256, offset, PIECE_BYTES
            )
            if not data:
                return
            yield pb.ReadInputsResponse(data=data)
            offset += len(data)
