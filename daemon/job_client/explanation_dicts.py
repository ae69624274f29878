"""Explanations as the CLI prints them; the keys are stable (DESIGN §11)."""

from __future__ import annotations

from typing import Any

from daemon.job_client.job_dicts import job_dict, time_text
from runner.v1 import job_pb2
from runner.v1 import job_service_pb2 as pb

ExplanationDict = dict[str, Any]


def explanation_dict(response: pb.ExplainJobResponse) -> ExplanationDict:
    """Return why a job is where it is."""
    return {
        "job": job_dict(response.job),
        "summary": response.summary,
        "waits": [
            {"kind": wait.kind, "text": wait.text, "job_ids": list(wait.job_ids)}
            for wait in response.waits
        ],
        "live": _live_dict(response.live) if response.HasField("live") else None,
        "next_step": response.next_step or None,
        "next_step_time": time_text(response, "next_step_time"),
    }


def _live_dict(live: pb.LiveAttempt) -> dict[str, Any]:
    return {
        "agent": live.agent,
        "connected": live.connected,
        "heartbeat_time": time_text(live, "heartbeat_time"),
        "lease_expire_time": time_text(live, "lease_expire_time"),
        "output_time": time_text(live, "output_time"),
        "log_bytes": live.log_bytes,
        "processes": [_process_dict(process) for process in live.processes],
        "processes_unknown": live.processes_unknown or None,
    }


def _process_dict(process: job_pb2.LiveProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "parent_pid": process.parent_pid,
        "command": process.command,
        "state": process.state,
        "cpu_seconds": process.cpu_usage.seconds + process.cpu_usage.nanos / 1e9,
        "start_time": time_text(process, "start_time"),
    }
