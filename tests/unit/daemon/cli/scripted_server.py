"""A JobService that does what a test tells it, on a real socket: it goes away, says no, comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc

from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb
from runner.v1 import job_service_pb2_grpc as rpc

RUNNING, PENDING, SUCCEEDED = (
    job_pb2.JOB_STATE_RUNNING,
    job_pb2.JOB_STATE_PENDING,
    job_pb2.JOB_STATE_SUCCEEDED,
)
ID = "job-1"


class ScriptedServer(rpc.JobServiceServicer):
    """Knows one job with logs by attempt, and any number of jobs that have ended."""

    def __init__(self) -> None:
        self.logs: list[bytes] = []
        """What each attempt that has begun printed."""
        self.running = False
        """Whether the last attempt still runs."""
        self.state: Any = SUCCEEDED
        self.ended: dict[str, Any] = {}
        self.cuts: list[tuple[int, str, Callable[[], None]]] = []
        """For each ReadLog: after how many bytes it breaks, by which reason, and what happens then."""
        self.refusals: list[str] = []
        """The reasons by which the next calls of any other kind are refused."""
        self.calls: list[str] = []
        self.requests: list[pb.SubmitJobRequest] = []
        self.watched: list[list[str]] = []
        self.events: list[pb.WatchJobsResponse] = []
        self.changed = threading.Condition()

    def change(self, **facts: Any) -> None:
        """Change the job as another process would, and tell its watchers."""
        with self.changed:
            vars(self).update(facts)
            event = job_pb2.JobEvent(job_id=ID, state=self.state, attempt=len(self.logs))
            self.events.append(pb.WatchJobsResponse(events=[event]))
            self.changed.notify_all()

    def job(self, job_id: str) -> job_pb2.Job:
        if job_id == ID:
            return job_pb2.Job(id=ID, state=self.state, attempt=len(self.logs))
        return job_pb2.Job(id=job_id, state=self.ended[job_id], attempt=1)

    def SubmitJob(self, request, context):
        self._enter("SubmitJob", context)
        self.requests.append(request)
        return pb.SubmitJobResponse(job=self.job(ID))

    def SubmitJobs(self, request, context):
        self._enter("SubmitJobs", context)
        self.requests += request.requests
        return pb.SubmitJobsResponse(jobs=[self.job(ID)] * len(request.requests))

    def GetJob(self, request, context):
        self._enter("GetJob", context)
        return pb.GetJobResponse(job=self.job(request.job_id))

    def CancelJob(self, request, context):
        self._enter("CancelJob", context)
        return pb.CancelJobResponse(job=self.job(request.job_id))

    def RetryJob(self, request, context):
        self._enter("RetryJob", context)
        return pb.RetryJobResponse(job=self.job(request.job_id))

    def ExplainJob(self, request, context):
        self._enter("ExplainJob", context)
        return pb.ExplainJobResponse(job=self.job(request.job_id))

    def ListJobs(self, request, context):
        self._enter("ListJobs", context)
        start = int(request.page_token or 0)
        names = sorted(self.ended, reverse=True)
        page = names[start : start + request.page_size]
        after = start + len(page)
        token = str(after) if after < len(names) else ""
        return pb.ListJobsResponse(jobs=[self.job(name) for name in page], next_page_token=token)

    def WatchJobs(self, request, context) -> Iterator[pb.WatchJobsResponse]:
        self._enter("WatchJobs", context)
        self.watched.append(list(request.job_ids))
        seen = len(self.events)
        context.send_initial_metadata(())
        while context.is_active():
            with self.changed:
                if len(self.events) == seen:
                    self.changed.wait(0.1)
                fresh = self.events[seen:]
            yield from fresh
            seen += len(fresh)

    def ReadLog(self, request, context) -> Iterator[pb.ReadLogResponse]:
        self.calls.append(f"ReadLog {request.attempt} {request.offset}")
        number, offset = request.attempt or len(self.logs), request.offset
        if not 0 < number <= len(self.logs):
            _abort(context, grpc.StatusCode.NOT_FOUND, "ATTEMPT_NOT_FOUND")
        room, reason, then = self.cuts.pop(0) if self.cuts else (1 << 30, "", lambda: None)
        log = self.logs[number - 1]
        while offset < len(log) and room >= 2:
            yield pb.ReadLogResponse(attempt=number, offset=offset, data=log[offset : offset + 2])
            offset, room = min(offset + 2, len(log)), room - 2
        last_runs = self.running and number == len(self.logs)
        if offset < len(log) or last_runs:
            then()
            _abort(context, grpc.StatusCode.UNAVAILABLE, reason)
        end = pb.LogEnd(length=len(log), complete=True)
        yield pb.ReadLogResponse(attempt=number, offset=offset, end=end)

    def ListArtifacts(self, request, context):
        """Have no outputs."""
        return pb.ListArtifactsResponse()

    def ReadArtifact(self, request, context) -> Iterator[pb.ReadArtifactResponse]:
        """Have no outputs."""
        _abort(context, grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND")

    def _enter(self, name: str, context: Any) -> None:
        self.calls.append(name)
        if self.refusals:
            _abort(context, grpc.StatusCode.UNAVAILABLE, self.refusals.pop(0))


def _abort(context: Any, code: grpc.StatusCode, reason: str) -> NoReturn:
    if reason:
        context.set_trailing_metadata((("reason", reason),))
    context.abort(code, "as the test wants it")
    raise AssertionError


def serve(servicer: ScriptedServer, socket: Path) -> grpc.Server:
    """Serve on a unix socket; the caller stops it."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    rpc.add_JobServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server
