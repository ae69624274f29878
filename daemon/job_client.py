"""JobService seen from the CLI: blocking calls, plain values out, one clear error each.

grpc is imported by this module, and this module only by the commands that call the server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from daemon.errors import NotRunningError, RemoteError, StateDirError
from daemon.paths import StateDir
from runner.v1 import job_pb2, job_service_pb2_grpc
from runner.v1 import job_service_pb2 as pb

CALL_TIMEOUT_S = 30.0
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: 2,
    grpc.StatusCode.NOT_FOUND: 3,
    grpc.StatusCode.UNAVAILABLE: 3,
}

JobDict = dict[str, Any]
PATIENCE_S = 30.0
"""How long a follower waits for a server that went away, before it gives up."""


class Patience:
    """Bounds the time without any answer while a server restarts."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + PATIENCE_S

    def renew(self) -> None:
        """Start over: the server has answered."""
        self._deadline = time.monotonic() + PATIENCE_S

    def spend(self, error: NotRunningError) -> None:
        """Wait a little, or raise the error if there is no patience left."""
        if time.monotonic() > self._deadline:
            raise error
        time.sleep(0.2)


class JobClient:
    """One connection to the job server of one state directory; a context manager."""

    def __init__(self, state: StateDir) -> None:
        endpoint, token = _find_server(state)
        self._channel = grpc.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        self._stub = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

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
        self._channel.close()

    def submit(self, requests: Sequence[pb.SubmitJobRequest]) -> list[JobDict]:
        """Submit one job, or several all or none."""
        if len(requests) == 1:
            return [job_dict(self._call(self._stub.SubmitJob, requests[0]).job)]
        batch = pb.SubmitJobsRequest(requests=requests)
        return [job_dict(job) for job in self._call(self._stub.SubmitJobs, batch).jobs]

    def get(self, job_id: str) -> JobDict:
        """Return one job with its attempts."""
        return job_dict(self._call(self._stub.GetJob, pb.GetJobRequest(job_id=job_id)).job)

    def list(self, states: Sequence[str], limit: int) -> list[JobDict]:
        """Return up to ``limit`` jobs, newest first."""
        wanted = [job_pb2.JobState.Value(f"JOB_STATE_{state}") for state in states]
        jobs: list[JobDict] = []
        token = ""
        while len(jobs) < limit:
            page = self._call(
                self._stub.ListJobs,
                pb.ListJobsRequest(
                    page_size=min(limit - len(jobs), 1000), page_token=token, states=wanted
                ),
            )
            jobs.extend(job_dict(job) for job in page.jobs)
            token = page.next_page_token
            if not token:
                break
        return jobs

    def cancel(self, job_id: str) -> JobDict:
        """Ask for the end of a job."""
        return job_dict(self._call(self._stub.CancelJob, pb.CancelJobRequest(job_id=job_id)).job)

    def read_log(
        self, job_id: str, attempt: int, offset: int, *, follow: bool
    ) -> Iterator[pb.ReadLogResponse]:
        """Yield pieces of a log; with ``follow`` until the job has ended."""
        request = pb.ReadLogRequest(job_id=job_id, attempt=attempt, offset=offset, follow=follow)
        with _errors():
            yield from self._stub.ReadLog(request, metadata=self._metadata)

    def follow_log(self, job_id: str, attempt: int, offset: int) -> Iterator[pb.ReadLogResponse]:
        """Yield a log until its end, over restarts of the server, without a gap or a repeat.

        ``attempt`` 0 starts at the newest and goes on into later ones, until the job has ended.
        """
        patience = Patience()
        wanted = attempt
        while True:
            try:
                for piece in self.read_log(job_id, wanted, offset, follow=True):
                    patience.renew()
                    attempt, offset = piece.attempt, piece.offset + len(piece.data)
                    yield piece
                    if piece.HasField("end"):
                        offset = 0
            except NotRunningError as error:
                patience.spend(error)
                # Bytes of the attempt that was being read must not be taken for those of a newer one.
                if offset:
                    wanted = attempt
            else:
                return

    def wait(self, job_ids: Sequence[str]) -> Iterator[str]:
        """Yield the id of each job as it ends, until all have; goes on over restarts of the server."""
        left = set(job_ids)
        patience = Patience()
        while left:
            try:
                for job_id in self._ends(left):
                    patience.renew()
                    left.discard(job_id)
                    yield job_id
            except NotRunningError as error:
                patience.spend(error)

    def _ends(self, job_ids: AbstractSet[str]) -> Iterator[str]:
        left = set(job_ids)
        request = pb.WatchJobsRequest(job_ids=sorted(left), after_event_id=-1)
        with _errors():
            stream = self._stub.WatchJobs(request, metadata=self._metadata)
            try:
                # The headers say that watching has begun; only then is looking free of a blind moment.
                stream.initial_metadata()
                for job_id in sorted(left):
                    if self.get(job_id)["state"] in FINAL_STATES:
                        left.discard(job_id)
                        yield job_id
                while left:
                    event = next(stream).event
                    if event.job_id in left and _state(event.state) in FINAL_STATES:
                        left.discard(event.job_id)
                        yield event.job_id
            finally:
                stream.cancel()

    def _call(self, method: Any, request: Any) -> Any:
        with _errors():
            return method(request, metadata=self._metadata, timeout=CALL_TIMEOUT_S)


FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELLED")


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)  # noqa: S101, PT017 - the error of a call is the call
        code, details = error.code(), error.details() or ""
        trailers = {item.key: item.value for item in error.trailing_metadata() or ()}
        reason = str(trailers.get("reason", code.name))
        if code is grpc.StatusCode.UNAVAILABLE and reason == code.name:
            raise NotRunningError(
                "the job server does not answer; see `runner local status`, start it with `runner local start`"
            ) from error
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and reason == code.name:
            details = f"the message is too large for the job server ({details})"
        raise RemoteError(details, reason, EXIT_CODES.get(code, 1)) from error


def _find_server(state: StateDir) -> tuple[str, str]:
    try:
        endpoints = json.loads(state.endpoints.read_bytes())
        token = state.token.read_text().strip()
    except FileNotFoundError:
        raise NotRunningError("runner is not running; start it with `runner local start`") from None
    except (OSError, ValueError) as error:
        raise StateDirError(f"cannot read the endpoints in {state.root}: {error}") from error
    return str(endpoints["endpoints"]["unix"]), token


def job_dict(job: job_pb2.Job) -> JobDict:
    """Return a job in the words of DESIGN §11. References to secrets stay references."""
    document: JobDict = {
        "id": job.id,
        "name": job.spec.name,
        "state": _state(job.state),
        "end_reason": _end_reason(job.end_reason),
        "exit_code": job.exit_code if job.HasField("exit_code") else None,
        "attempt": job.attempt,
        "create_time": _time(job, "create_time"),
        "start_time": _time(job, "start_time"),
        "end_time": _time(job, "end_time"),
        "sandbox": _sandbox(job.sandbox),
        "message": job.message,
        "priority": job.spec.priority,
        "labels": dict(job.spec.labels),
        "command": list(job.spec.argv),
    }
    if job.attempts:
        document["attempts"] = [_attempt_dict(attempt) for attempt in job.attempts]
    return document


def _attempt_dict(attempt: job_pb2.Attempt) -> JobDict:
    return {
        "attempt": attempt.number,
        "state": _state(attempt.state),
        "end_reason": _end_reason(attempt.end_reason),
        "exit_code": attempt.exit_code if attempt.HasField("exit_code") else None,
        "message": attempt.message,
        "agent": attempt.agent,
        "start_time": _time(attempt, "start_time"),
        "end_time": _time(attempt, "end_time"),
        "sandbox": _sandbox(attempt.sandbox),
        "log": {
            "bytes": attempt.log_bytes,
            "sha256": attempt.log_sha256 or None,
            "truncated": attempt.log_truncated or None,
        },
    }


def _sandbox(info: job_pb2.SandboxInfo) -> Mapping[str, Any] | None:
    if not info.kind:
        return None
    return {"kind": info.kind, "tier": info.tier, "walls_not_held": list(info.walls_not_held)}


def _state(number: int) -> str:
    return job_pb2.JobState.Name(number).removeprefix("JOB_STATE_")  # type: ignore[arg-type]


def _end_reason(number: int) -> str | None:
    if number == 0:
        return None
    return job_pb2.EndReason.Name(number).removeprefix("END_REASON_")  # type: ignore[arg-type]


def _time(message: Any, name: str) -> str | None:
    stamp: Timestamp = getattr(message, name)
    return stamp.ToJsonString() if message.HasField(name) else None
