"""JobService: the calls of clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from agent_runner.wire import time_from_pb
from daemon.errors import UsageError
from daemon.jobs.models import Job, NewJob
from daemon.jobs.store import JobStore
from daemon.server.artifact_reader import ArtifactReader
from daemon.server.caller import CALLER
from daemon.server.completions import Completions
from daemon.server.convert import event_to_pb, job_to_pb, states_from_pb
from daemon.server.dispatcher import Dispatcher
from daemon.server.job_watch import JobWatch
from daemon.server.log_reader import LogReader
from daemon.server.pending_limit import PendingLimit
from daemon.server.resubmission import repeated, repeated_before
from daemon.server.signals import Signals
from daemon.server.submission import new_jobs
from runner.v1 import job_service_pb2 as pb
from runner.v1 import job_service_pb2_grpc as rpc

DEFAULT_PAGE = 100
MAX_PAGE = 1000
Explain: TypeAlias = Callable[[str], Awaitable[pb.ExplainJobResponse]]
MAX_PAGE_BYTES = 3 << 20
"""Specifications can be large, and a message holds 4 MiB."""


class JobServicer(rpc.JobServiceServicer):
    """One per server. The interceptor has checked the token, and that each job which a request names exists for whoever has it."""

    def __init__(  # noqa: PLR0913 - the parts of one server, joined once
        self,
        *,
        store: JobStore,
        pending: PendingLimit,
        log_reader: LogReader,
        dispatcher: Dispatcher,
        signals: Signals,
        completions: Completions,
        explain: Explain,
        artifacts: ArtifactReader,
    ) -> None:
        self._store = store
        self._pending = pending
        self._log_reader = log_reader
        self._watch = JobWatch(store, signals)
        self._dispatcher = dispatcher
        self._signals = signals
        self._completions = completions
        self._explain = explain
        self._artifacts = artifacts

    async def SubmitJob(self, request: pb.SubmitJobRequest, context: Any) -> pb.SubmitJobResponse:
        """Accept one job; answered after it is durable."""
        jobs = await self._submit(await new_jobs((request,), CALLER.get()))
        return pb.SubmitJobResponse(job=job_to_pb(jobs[0]))

    async def SubmitJobs(
        self, request: pb.SubmitJobsRequest, context: Any
    ) -> pb.SubmitJobsResponse:
        """Accept several jobs or none; answered after they are durable."""
        jobs = await self._submit(await new_jobs(request.requests, CALLER.get()))
        return pb.SubmitJobsResponse(jobs=[job_to_pb(job) for job in jobs])

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        """Return one job with its attempts."""
        job = await self._store.get(request.job_id)
        attempts = await self._store.attempts(request.job_id)
        children = await self._store.children(request.job_id)
        return pb.GetJobResponse(
            job=job_to_pb(job, self._log_reader.with_lengths(attempts), children)
        )

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        """Return a page of jobs; shorter than asked for where the jobs are large."""
        if request.page_size < 0:
            raise UsageError("page_size must not be negative")
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        states = states_from_pb(request.states)
        since_us = time_from_pb(request.since_time) if request.HasField("since_time") else 0
        projects = CALLER.get().among((request.project,) if request.project else ())
        while True:
            page = await self._store.list(
                states,
                size,
                request.page_token,
                labels=request.labels,
                since_us=since_us,
                projects=projects,
            )
            response = pb.ListJobsResponse(
                jobs=[job_to_pb(job) for job in page.jobs], next_page_token=page.next_page_token
            )
            if size == 1 or response.ByteSize() <= MAX_PAGE_BYTES:
                return response
            size //= 2

    async def WatchJobs(
        self, request: pb.WatchJobsRequest, context: Any
    ) -> AsyncIterator[pb.WatchJobsResponse]:
        """Stream the changes of jobs until the client leaves."""
        after_id = await self._watch.start(request.after_event_id, request.job_ids)
        # Tells the client that nothing after this moment will be missed.
        await context.send_initial_metadata((("last-event-id", str(after_id)),))
        visible = CALLER.get().projects
        async with aclosing(self._watch.events(after_id, request.job_ids, visible)) as events:
            async for batch in events:
                yield pb.WatchJobsResponse(events=[event_to_pb(event) for event in batch])

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        """End a queued job, or have a running one stopped."""
        job = await self._completions.run(self._cancel(request.job_id))
        return pb.CancelJobResponse(job=job_to_pb(job))

    async def RetryJob(self, request: pb.RetryJobRequest, context: Any) -> pb.RetryJobResponse:
        """Submit a job again that has ended; answered after the new one is durable."""
        accepted = await repeated_before(self._store, request.job_id, request.request_id)
        if accepted is None:
            job = await repeated(self._store, request.job_id, request.request_id)
            (accepted,) = await self._submit((job,))
        return pb.RetryJobResponse(job=job_to_pb(accepted))

    async def ExplainJob(
        self, request: pb.ExplainJobRequest, context: Any
    ) -> pb.ExplainJobResponse:
        """Say why a job is where it is."""
        return await self._explain(request.job_id)

    async def ReadLog(
        self, request: pb.ReadLogRequest, context: Any
    ) -> AsyncIterator[pb.ReadLogResponse]:
        """Stream a log by byte offset."""
        async with aclosing(self._log_reader.read(request)) as responses:
            async for response in responses:
                yield response

    async def ListArtifacts(
        self, request: pb.ListArtifactsRequest, context: Any
    ) -> pb.ListArtifactsResponse:
        """Return the outputs of an attempt."""
        return await self._artifacts.list(request)

    async def ReadArtifact(
        self, request: pb.ReadArtifactRequest, context: Any
    ) -> AsyncIterator[pb.ReadArtifactResponse]:
        """Stream the content of one output."""
        async with aclosing(self._artifacts.read(request)) as responses:
            async for response in responses:
                yield response

    async def _submit(self, jobs: Sequence[NewJob]) -> list[Job]:
        await self._pending.take(jobs)
        return await self._dispatcher.submit(jobs)

    async def _cancel(self, job_id: str) -> Job:
        job = await self._store.cancel(job_id)
        self._signals.job_changed(job_id)
        if not job.state.final:
            self._dispatcher.cancel(job)
        return job
