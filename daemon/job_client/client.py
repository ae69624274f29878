"""The calls of the CLI to JobService, and the operations that outlive a restart of the server."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from agent_runner.outcome import OutputFile
from daemon.errors import NotRunningError
from daemon.job_client.calls import PATIENCE_S, Patience, UnavailableError
from daemon.job_client.connection import Connection, Server
from daemon.job_client.job_dicts import FINAL_STATES, JobDict, job_dict, state_name
from runner.v1 import job_pb2, job_service_pb2_grpc
from runner.v1 import job_service_pb2 as pb

MAX_BATCH = 1000
"""Of jobs in a call, of jobs on a page, of jobs that a watch names (job_service.proto)."""
BATCH_BYTES = 2 << 20
"""A message holds 4 MiB, and the answer repeats the jobs."""
NEWEST = -1
LAST_EVENT_ID = "last-event-id"
"""The header of WatchJobs that says after which event it begins (job_service.proto)."""
FEW_JOBS = 50
"""Up to so many jobs are asked for one by one, with their attempts."""

T = TypeVar("T")


class JobClient:
    """One connection to a job server; a context manager.

    The connection outlives restarts of the server and of the whole installation.
    """

    def __init__(
        self,
        find: Callable[[], Server],
        running: Callable[[], bool],
        *,
        patience_s: float = PATIENCE_S,
        project: str = "",
    ) -> None:
        """Find the server; waits for one that is just starting.

        Args:
            find: Returns it, or raises NotRunningError.
            running: Tells whether any process of the installation lives, so that waiting makes sense.
            patience_s: How long to wait for a server that went away.
            project: Of jobs that are submitted and name none, and of those that are listed; empty leaves that to the token.

        Raises:
            NotRunningError: Nothing runs.
            InvalidConfigError: As ``Connection``.
        """
        self._running = running
        self._patience_s = patience_s
        self._project = project
        self._connection = Connection(self._repeat(find))
        self._stub = job_service_pb2_grpc.JobServiceStub(self._connection.channel)
        self._call = self._connection.call

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._connection.close()

    def submit(self, request: pb.SubmitJobRequest, count: int = 1) -> list[JobDict]:
        """Submit a job ``count`` times, in batches that are all or none; goes on over a restart of the server.

        Every job gets a request id, unless one is given, so that repeating a call is harmless.
        """
        size = max(1, min(MAX_BATCH, BATCH_BYTES // (request.ByteSize() + 1)))
        submitted: list[JobDict] = []
        for start in range(0, count, size):
            batch = pb.SubmitJobsRequest(requests=[request] * min(size, count - start))
            for one in batch.requests:
                one.request_id = one.request_id or os.urandom(16).hex()
            submitted += self._repeat(lambda: self._submit(batch))  # noqa: B023 - called here and now
        return submitted

    def submit_all(self, requests: Sequence[pb.SubmitJobRequest]) -> list[JobDict]:
        """Submit different jobs, all or none; goes on over a restart of the server."""
        batch = pb.SubmitJobsRequest(requests=requests)
        for one in batch.requests:
            one.request_id = one.request_id or os.urandom(16).hex()
        return self._repeat(lambda: self._submit(batch))

    def _submit(self, batch: pb.SubmitJobsRequest) -> list[JobDict]:
        for one in batch.requests:
            one.project = self._project
        if len(batch.requests) == 1:
            return [job_dict(self._call(self._stub.SubmitJob, batch.requests[0]).job)]
        return [job_dict(job) for job in self._call(self._stub.SubmitJobs, batch).jobs]

    def get(self, job_id: str) -> JobDict:
        """Return one job with its attempts."""
        return job_dict(self._call(self._stub.GetJob, pb.GetJobRequest(job_id=job_id)).job)

    def get_all(self, job_ids: Sequence[str]) -> list[JobDict]:
        """Return jobs in this order; of more than a few without their attempts, as ``newest`` has them."""
        return self._repeat(lambda: self._get_all(job_ids))

    def newest(
        self,
        states: Sequence[str],
        limit: int,
        labels: Mapping[str, str] | None = None,
        since_us: int | None = None,
    ) -> list[JobDict]:
        """Return up to ``limit`` jobs, newest first; only those with all these labels, accepted since that moment."""
        jobs: list[JobDict] = []
        wanted = pb.ListJobsRequest(labels=labels, project=self._project)
        if since_us is not None:
            wanted.since_time.FromMicroseconds(since_us)
        for page in self._pages(states, limit, wanted):
            jobs += page
            if len(jobs) >= limit:
                break
        return jobs[:limit]

    def cancel(self, job_id: str) -> JobDict:
        """Ask for the end of a job."""
        return job_dict(self._call(self._stub.CancelJob, pb.CancelJobRequest(job_id=job_id)).job)

    def retry(self, job_id: str, request_id: str | None = None) -> JobDict:
        """Submit a job that has ended again; goes on over a restart of the server, and makes one job."""
        request = pb.RetryJobRequest(job_id=job_id, request_id=request_id or os.urandom(16).hex())
        return job_dict(self._repeat(lambda: self._call(self._stub.RetryJob, request)).job)

    def explain(self, job_id: str) -> pb.ExplainJobResponse:
        """Ask why a job is where it is."""
        response: pb.ExplainJobResponse = self._call(
            self._stub.ExplainJob, pb.ExplainJobRequest(job_id=job_id)
        )
        return response

    def watch(self, job_ids: Sequence[str] = ()) -> Iterator[job_pb2.JobEvent]:
        """Yield the changes of jobs from now on, without a gap or a repeat over restarts of the server.

        Empty ``job_ids`` are all jobs, and it never ends. Named jobs are watched until all have ended; of one that has
        ended already its end is yielded.
        """
        after_id = NEWEST
        left = set(job_ids)
        patience = Patience(self._patience_s)
        while left or not job_ids:
            try:
                with self._watching(sorted(left), after_id) as (first_id, events):
                    for event in itertools.chain(self._past_ends(sorted(left), first_id), events):
                        patience.renew()
                        after_id = max(after_id, event.id)
                        if not job_ids or event.job_id in left:
                            yield event
                        if state_name(event.state) in FINAL_STATES:
                            left.discard(event.job_id)
                        if job_ids and not left:
                            return
            except UnavailableError as error:
                patience.spend(error)

    def _past_ends(self, job_ids: Sequence[str], event_id: int) -> Iterator[job_pb2.JobEvent]:
        """Yield the ends of those jobs that have ended, as changes of this id."""
        for job_id in job_ids:
            job = self._call(self._stub.GetJob, pb.GetJobRequest(job_id=job_id)).job
            if state_name(job.state) in FINAL_STATES:
                yield job_pb2.JobEvent(
                    id=event_id,
                    job_id=job_id,
                    state=job.state,
                    end_reason=job.end_reason,
                    attempt=job.attempt,
                    event_time=job.end_time,
                    exit_code=job.exit_code if job.HasField("exit_code") else None,
                )

    def outputs(self, job_id: str, attempt: int) -> tuple[int, list[OutputFile], str]:
        """Return the attempt that is meant, its outputs, and which of them are not kept and why."""
        request = pb.ListArtifactsRequest(job_id=job_id, attempt=attempt)
        found = self._call(self._stub.ListArtifacts, request)
        files = [
            OutputFile(each.name, each.sha256, each.size_bytes, each.mode)
            for each in found.artifacts
        ]
        return found.attempt, files, found.outputs_error

    def read_output(self, job_id: str, attempt: int, file: OutputFile) -> Iterator[bytes]:
        """Yield the content of an output, over restarts of the server."""
        patience = Patience(self._patience_s)
        offset = 0
        while offset < file.size:
            request = pb.ReadArtifactRequest(
                job_id=job_id, attempt=attempt, name=file.name, offset=offset
            )
            try:
                with self._connection.errors():
                    metadata = self._connection.metadata
                    for piece in self._stub.ReadArtifact(request, metadata=metadata):
                        patience.renew()
                        offset += len(piece.data)
                        yield piece.data
                    return
            except UnavailableError as error:
                patience.spend(error)

    def read_log(
        self, job_id: str, attempt: int, offset: int, *, follow: bool
    ) -> Iterator[pb.ReadLogResponse]:
        """Yield pieces of a log as the server sends them: with ``follow`` until the attempt has ended."""
        request = pb.ReadLogRequest(job_id=job_id, attempt=attempt, offset=offset, follow=follow)
        with self._connection.errors():
            stream = self._stub.ReadLog(request, metadata=self._connection.metadata)
            try:
                yield from stream
            finally:
                stream.cancel()

    def follow_log(self, job_id: str, attempt: int, offset: int) -> Iterator[pb.ReadLogResponse]:
        """Yield a log until its end, over restarts of the server, without a gap or a repeat.

        ``attempt`` 0 starts at the newest and goes on into each later one, until the job has ended.
        """
        patience = Patience(self._patience_s)
        number = attempt or max(1, patience.insist(lambda: self.get(job_id))["attempt"])
        while attempt or self._await_attempt(job_id, number, patience):
            yield from self._attempt_log(job_id, number, offset, patience)
            if attempt:
                return
            number, offset = number + 1, 0

    def wait(self, job_ids: Sequence[str]) -> Iterator[str]:
        """Yield the id of each job as it ends, until all have; goes on over restarts of the server."""
        left = set(job_ids)
        patience = Patience(self._patience_s)
        while left:
            try:
                for job_id in self._ends(left, patience):
                    left.discard(job_id)
                    yield job_id
            except UnavailableError as error:
                patience.spend(error)

    def _attempt_log(
        self, job_id: str, number: int, offset: int, patience: Patience
    ) -> Iterator[pb.ReadLogResponse]:
        """Yield the log of one attempt from an offset to its end."""
        while True:
            try:
                for piece in self.read_log(job_id, number, offset, follow=True):
                    patience.renew()
                    offset = piece.offset + len(piece.data)
                    yield piece
                    if piece.HasField("end"):
                        return
            except UnavailableError as error:
                patience.spend(error)
                # A silent log proves nothing, so this tells that the server is back.
                patience.insist(lambda: self.get(job_id))

    def _await_attempt(self, job_id: str, number: int, patience: Patience) -> bool:
        """Wait until this attempt has begun; False if the job has ended without it."""
        begun = patience.insist(lambda: self._has_attempt(job_id, number))
        if begun is None:
            begun = patience.insist(lambda: self._watch_for(job_id, number))
        return begun

    def _has_attempt(self, job_id: str, number: int) -> bool | None:
        job = self.get(job_id)
        if job["attempt"] >= number:
            return True
        return False if job["state"] in FINAL_STATES else None

    def _watch_for(self, job_id: str, number: int) -> bool:
        with self._watching([job_id]) as (_, events):
            begun = self._has_attempt(job_id, number)
            while begun is None:
                event = next(events)
                if event.attempt >= number:
                    begun = True
                elif state_name(event.state) in FINAL_STATES:
                    begun = False
        return begun

    def _ends(self, job_ids: Collection[str], patience: Patience) -> Iterator[str]:
        left = set(job_ids)
        # Above what a watch may name all jobs are watched.
        with self._watching(sorted(left) if len(left) <= MAX_BATCH else []) as (_, events):
            jobs = self._get_all(sorted(left))
            patience.renew()
            for job in jobs:
                if job["state"] in FINAL_STATES:
                    left.discard(job["id"])
                    yield job["id"]
            while left:
                event = next(events)
                if event.job_id in left and state_name(event.state) in FINAL_STATES:
                    left.discard(event.job_id)
                    yield event.job_id

    @contextmanager
    def _watching(
        self, job_ids: Sequence[str], after_id: int = NEWEST
    ) -> Iterator[tuple[int, Iterator[job_pb2.JobEvent]]]:
        """Watch jobs after an event, or from now on; what is looked up inside the block is free of a blind moment.

        Gives the event after which the watch begins, and the events.
        """
        request = pb.WatchJobsRequest(job_ids=job_ids, after_event_id=after_id)
        with self._connection.errors():
            stream = self._stub.WatchJobs(request, metadata=self._connection.metadata)
            try:
                # The headers say that watching has begun.
                headers = dict(stream.initial_metadata())
                yield int(headers.get(LAST_EVENT_ID, after_id)), _events(stream)
            finally:
                stream.cancel()

    def _get_all(self, job_ids: Sequence[str]) -> list[JobDict]:
        found: dict[str, JobDict] = {}
        if len(job_ids) > FEW_JOBS:
            wanted = set(job_ids)
            # Most often they are the newest. If not, looking further is dearer than asking for each.
            for page in self._pages((), 2 * len(wanted)):
                found |= {job["id"]: job for job in page if job["id"] in wanted}
                if len(found) == len(wanted):
                    break
        return [found.get(job_id) or self.get(job_id) for job_id in job_ids]

    def _pages(
        self, states: Sequence[str], limit: int, wanted: pb.ListJobsRequest | None = None
    ) -> Iterator[list[JobDict]]:
        request = wanted or pb.ListJobsRequest()
        request.states.extend(job_pb2.JobState.Value(f"JOB_STATE_{state}") for state in states)
        left = limit
        while left > 0:
            request.page_size = min(left, MAX_BATCH)
            page = self._call(self._stub.ListJobs, request)
            yield [job_dict(job) for job in page.jobs]
            left -= len(page.jobs)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _repeat(self, call: Callable[[], T]) -> T:
        """Call until the server takes it; gives up at once when nothing runs."""
        patience = Patience(self._patience_s)
        while True:
            try:
                return call()
            except (UnavailableError, NotRunningError) as error:
                if not self._running():
                    raise
                patience.spend(error)


def _events(stream: Any) -> Iterator[job_pb2.JobEvent]:
    for response in stream:
        yield from response.events
    raise UnavailableError("the job server ended the watch", "UNAVAILABLE", 3)
