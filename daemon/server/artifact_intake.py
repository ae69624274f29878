"""The writing half of the outputs API: takes contents by digest, before the attempt that has them is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import PurePosixPath
from typing import Any

from agent_runner.outcome import OutputFile
from agent_runner.outputs_spec import MAX_BYTES, MAX_FILES, MAX_NAME_BYTES
from daemon.artifacts.blob_store import SHA256, BlobStore, IncomingBlob
from daemon.errors import ArtifactMissingError, UsageError
from daemon.jobs.store import JobStore
from daemon.server.convert import lease_from_pb
from daemon.server.lease_keeper import LeaseKeeper
from runner.v1 import agent_service_pb2 as pb

MAX_PIECE_BYTES = 1 << 20
MAX_KEEPING = 16
"""Contents of one call that wait for the disk at once: each waits for milliseconds, all of them hardly longer."""


class ArtifactIntake:
    """One per server."""

    def __init__(self, store: JobStore, blobs: BlobStore, leases: LeaseKeeper) -> None:
        self._store = store
        self._blobs = blobs
        self._leases = leases

    async def receive(
        self, requests: AsyncIterator[Any]
    ) -> AsyncGenerator[pb.UploadArtifactResponse, None]:
        """Answer one UploadArtifact call: what is missing, then each content that is complete.

        Raises:
            LeaseLostError: The lease is not held.
            UsageError: A request breaks a rule of the message.
            ArtifactNotWrittenError: The disk is full or broken.
        """
        first: pb.UploadArtifactRequest | None = await anext(requests, None)
        if first is None:
            return
        if len(first.digests) > MAX_FILES:
            raise UsageError(f"digests lists more than {MAX_FILES} contents")
        lease = lease_from_pb(first.lease)
        await self._store.check_lease(lease)
        due_us = await self._leases.heard(lease, 0)
        project = (await self._store.get(lease.job_id)).spec.project
        missing = await asyncio.to_thread(self._blobs.missing, project, first.digests)
        yield pb.UploadArtifactResponse(missing=missing)
        arrivals = _Arrivals()
        try:
            async for request in requests:
                due_us = await self._leases.heard(lease, due_us)
                if request.sha256:
                    # Between two contents, so that who has lost the job does not fill the disk.
                    await self._store.check_lease(lease)
                    arrivals.begin(self._blobs.begin(project, request.sha256, request.size_bytes))
                await arrivals.take(request.data)
                for sha256 in await arrivals.kept(MAX_KEEPING):
                    yield pb.UploadArtifactResponse(stored=sha256)
            for sha256 in await arrivals.kept(0):
                yield pb.UploadArtifactResponse(stored=sha256)
        finally:
            await arrivals.end()

    async def check_stored(self, job_id: str, files: Iterable[OutputFile]) -> None:
        """Make sure that the contents of outputs are here, and stay until the end that refers to them is stored.

        Raises:
            ArtifactMissingError: One is not here; it must be sent again.
        """
        digests = {file.sha256 for file in files}
        project = (await self._store.get(job_id)).spec.project
        missing = await asyncio.to_thread(self._blobs.missing, project, digests)
        if missing:
            raise ArtifactMissingError(
                f"{len(missing)} contents of outputs are not stored here: send them with UploadArtifact first"
            )


class _Arrivals:
    """The contents of one call: one that arrives, and those that are whole and wait for the disk together."""

    def __init__(self) -> None:
        self._blob: IncomingBlob | None = None
        self._keeping: set[asyncio.Task[str]] = set()

    def begin(self, blob: IncomingBlob) -> None:
        """Begin a content.

        Raises:
            UsageError: The one before is not complete.
        """
        if self._blob is not None:
            raise UsageError("a content begins before the one before is complete")
        self._blob = blob

    async def take(self, data: bytes) -> None:
        """Take the next bytes; have their content kept if they were the last.

        Raises:
            UsageError: They are too many, or of no content.
            ArtifactNotWrittenError: The disk is full or broken.
        """
        if self._blob is None:
            raise UsageError("data comes before the sha256 of its content")
        if len(data) > MAX_PIECE_BYTES:
            raise UsageError(f"data must hold at most {MAX_PIECE_BYTES} bytes")
        if await asyncio.to_thread(self._blob.write, data):
            self._keeping.add(asyncio.create_task(asyncio.to_thread(_keep, self._blob)))
            self._blob = None

    async def kept(self, at_most: int) -> list[str]:
        """Wait until at most so many wait for the disk; return the digests of those that are kept, each once.

        Raises:
            ArtifactNotWrittenError: One cannot be.
        """
        done = {task for task in self._keeping if task.done()}
        while len(self._keeping - done) > at_most:
            finished, _ = await asyncio.wait(
                self._keeping - done, return_when=asyncio.FIRST_COMPLETED
            )
            done |= finished
        self._keeping -= done
        return [task.result() for task in done]

    async def end(self) -> None:
        """Let go of what is not complete, and wait for what is: its threads use the store."""
        if self._blob is not None:
            await asyncio.to_thread(self._blob.close)
        if self._keeping:
            await asyncio.wait(self._keeping)


def _keep(blob: IncomingBlob) -> str:
    try:
        blob.keep()
    finally:
        blob.close()
    return blob.sha256


def check_files(files: tuple[OutputFile, ...]) -> None:
    """Check what an agent-runner says of outputs; files are made by these names later.

    Raises:
        UsageError: A file is impossible, or there are too many.
    """
    if len(files) > MAX_FILES:
        raise UsageError(f"outputs lists more than {MAX_FILES} files")
    if len({file.name for file in files}) < len(files):
        raise UsageError("outputs lists a name twice")
    for file in files:
        pure = PurePosixPath(file.name)
        plain = str(pure) == file.name and not pure.is_absolute() and ".." not in pure.parts
        if not plain or file.name == "." or "\0" in file.name:
            raise UsageError("outputs: a name is no relative path")
        if len(file.name.encode()) > MAX_NAME_BYTES:
            raise UsageError(f"outputs: a name is longer than {MAX_NAME_BYTES} bytes")
        if not SHA256.fullmatch(file.sha256):
            raise UsageError("outputs: a sha256 is not 64 lower-case hexadecimal digits")
        if not (0 <= file.size <= MAX_BYTES and 0 <= file.mode <= 0o777):  # noqa: PLR2004
            raise UsageError("outputs: a size or mode is impossible")
