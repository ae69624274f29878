"""Jobs as the CLI prints them: plain values from the messages of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from runner.v1 import job_pb2

FINAL_STATES = ("SUCCEEDED", "FAILED", "CANCELLED")

JobDict = dict[str, Any]


def job_dict(job: job_pb2.Job) -> JobDict:
    """Return a job in the words of DESIGN §11. References to secrets stay references."""
    document: JobDict = {
        "id": job.id,
        "name": job.spec.name,
        "project": job.spec.project,
        "state": state_name(job.state),
        "end_reason": _end_reason(job.end_reason),
        "exit_code": job.exit_code if job.HasField("exit_code") else None,
        "attempt": job.attempt,
        "create_time": time_text(job, "create_time"),
        "start_time": time_text(job, "start_time"),
        "end_time": time_text(job, "end_time"),
        "sandbox": _sandbox(job.sandbox),
        "message": job.message,
        "priority": job.spec.priority,
        "labels": dict(job.spec.labels),
        "command": list(job.spec.argv),
        "depends_on": list(job.spec.depends_on),
        "ready_time": time_text(job, "ready_time"),
        "retry_of": job.retry_of or None,
        "inputs": list(job.spec.inputs),
        "condition": job.spec.condition or "all_success",
        "parent": job.parent_id or None,
        "children": list(job.child_ids),
        "workflow": {"id": job.spec.workflow.id, "name": job.spec.workflow.name}
        if job.spec.HasField("workflow")
        else None,
    }
    if job.attempts:
        document["attempts"] = [_attempt_dict(attempt) for attempt in job.attempts]
    return document


def event_dict(event: job_pb2.JobEvent) -> JobDict:
    """Return a change of a job."""
    return {
        "event_id": event.id,
        "job_id": event.job_id,
        "state": state_name(event.state),
        "end_reason": _end_reason(event.end_reason),
        "exit_code": event.exit_code if event.HasField("exit_code") else None,
        "attempt": event.attempt,
        "event_time": time_text(event, "event_time"),
    }


def _attempt_dict(attempt: job_pb2.Attempt) -> JobDict:
    return {
        "attempt": attempt.number,
        "state": state_name(attempt.state),
        "end_reason": _end_reason(attempt.end_reason),
        "exit_code": attempt.exit_code if attempt.HasField("exit_code") else None,
        "message": attempt.message,
        "agent": attempt.agent,
        "start_time": time_text(attempt, "start_time"),
        "end_time": time_text(attempt, "end_time"),
        "sandbox": _sandbox(attempt.sandbox),
        "source": {
            "commit": attempt.source.commit or None,
            "ci_commit": attempt.source.ci_commit or None,
        },
        "log": {
            "bytes": attempt.log_bytes,
            "sha256": attempt.log_sha256 or None,
            "truncated": attempt.log_truncated or None,
        },
        "outputs_error": attempt.outputs_error or None,
    }


def _sandbox(info: job_pb2.SandboxInfo) -> Mapping[str, Any] | None:
    if not info.kind:
        return None
    return {
        "kind": info.kind,
        "tier": info.tier,
        "walls_not_held": list(info.walls_not_held),
        "limits": [
            {"name": each.name, "value": each.value, "by": each.by or None} for each in info.limits
        ],
    }


def state_name(number: int) -> str:
    """Return the word for the number of a state."""
    return job_pb2.JobState.Name(number).removeprefix("JOB_STATE_")  # type: ignore[arg-type]


def _end_reason(number: int) -> str | None:
    if number == 0:
        return None
    return job_pb2.EndReason.Name(number).removeprefix("END_REASON_")  # type: ignore[arg-type]


def time_text(message: Any, name: str) -> str | None:
    """Return a moment of a message as RFC 3339; None where it has none."""
    stamp: Timestamp = getattr(message, name)
    return stamp.ToJsonString() if message.HasField(name) else None
