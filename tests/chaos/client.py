"""A client that only knows the wire: it repeats what was not answered, and keeps every event of the jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from runner.v1 import job_pb2, job_service_pb2_grpc
from runner.v1 import job_service_pb2 as pb

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),
)
AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
"""What a server that dies or stands still gives; anything else is an answer."""
CALL_S = 20.0
INSIST_S = 150.0
FINAL = frozenset(
    {
        job_pb2.JOB_STATE_SUCCEEDED,
        job_pb2.JOB_STATE_FAILED,
        job_pb2.JOB_STATE_CANCELLED,
    }
)


class Client:
    """One connection; used from any thread."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._channel = grpc.insecure_channel(endpoint, options=OPTIONS)
        self.stub: Any = job_service_pb2_grpc.JobServiceStub(self._channel)
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.repeats = 0
        """How many calls had to be made again."""

    def close(self) -> None:
        self._channel.close()

    def submit(self, request: pb.SubmitJobRequest) -> job_pb2.Job:
        """Submit until it is acknowledged; the request id makes that harmless."""
        return self._insist(self.stub.SubmitJob, request).job

    def cancel(self, job_id: str) -> bool:
        """Cancel until it is acknowledged; False if the job had ended."""
        try:
            self._insist(self.stub.CancelJob, pb.CancelJobRequest(job_id=job_id))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                return False
            raise
        return True

    def get(self, job_id: str) -> job_pb2.Job:
        return self._insist(self.stub.GetJob, pb.GetJobRequest(job_id=job_id)).job

    def wait(self, job_id: str, deadline_s: float = 60) -> job_pb2.Job:
        """Ask until a job has ended."""
        end = time.monotonic() + deadline_s
        while True:
            job = self.get(job_id)
            if job.state in FINAL:
                return job
            assert time.monotonic() < end, f"not ended within {deadline_s} s: {job}"
            time.sleep(0.02)

    def log(self, job_id: str, attempt: int) -> tuple[bytes, pb.LogEnd]:
        """Read the whole log of one attempt that has ended; the pieces must follow each other."""

        def read(request: pb.ReadLogRequest, timeout: float, metadata: Any) -> Any:
            data = b""
            end = pb.LogEnd()
            for piece in self.stub.ReadLog(request, timeout=timeout, metadata=metadata):
                assert piece.offset == len(data), f"{job_id}-{attempt}: a gap at {len(data)}"
                data += piece.data
                end = piece.end
            return data, end

        return self._insist(read, pb.ReadLogRequest(job_id=job_id, attempt=attempt))

    def _insist(self, method: Callable[..., Any], request: Any) -> Any:
        deadline = time.monotonic() + INSIST_S
        while True:
            try:
                return method(request, timeout=CALL_S, metadata=self.metadata)
            except grpc.RpcError as error:
                if error.code() not in AGAIN or time.monotonic() > deadline:
                    raise
                self.repeats += 1
                time.sleep(0.05)


class Watcher:
    """Takes every event of every job from the first on, and after each lost connection from the last one on."""

    def __init__(self, client: Client) -> None:
        self.events: list[job_pb2.JobEvent] = []
        self.resumed = 0
        self.problems: list[str] = []
        self._client = client
        self._closed = False
        self._call: Any = None
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    def ended(self) -> set[str]:
        """Return the ids of the jobs that have ended as far as was told."""
        return {event.job_id for event in list(self.events) if event.state in FINAL}

    def close(self) -> None:
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._closed:
            after = self.events[-1].id if self.events else 0
            request = pb.WatchJobsRequest(after_event_id=after)
            try:
                self._call = self._client.stub.WatchJobs(request, metadata=self._client.metadata)
                for response in self._call:
                    self.events.extend(response.events)
            except grpc.RpcError as error:
                if error.code() not in AGAIN:
                    self.problems.append(f"WatchJobs: {error}")
                    return
            self.resumed += 1
            time.sleep(0.05)


def token_in(state: Path) -> str:
    """Return the token of a state directory."""
    return (state / "token").read_text().strip()
