"""Submits one job over gRPC, follows its log and exits with its exit code; uses only the generated stubs.

    python examples/grpc_client.py -- echo hello

It finds the server as any program can: the address and the token are files in the state directory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import grpc

from runner.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc


def state_dir() -> Path:
    """Return the state directory of the local instance."""
    if "RUNNER_STATE_DIR" in os.environ:
        return Path(os.environ["RUNNER_STATE_DIR"])
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "runner"


def main(argv: list[str]) -> int:
    """Run the command as a job; return its exit code."""
    endpoints = json.loads((state_dir() / "endpoints.json").read_text())["endpoints"]
    token = (state_dir() / "token").read_text().strip()
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(endpoints["unix"]) as channel:
        jobs = job_service_pb2_grpc.JobServiceStub(channel)
        spec = job_pb2.JobSpec(name="example", argv=argv)
        request = job_service_pb2.SubmitJobRequest(spec=spec)
        job = jobs.SubmitJob(request, metadata=metadata).job
        log = job_service_pb2.ReadLogRequest(job_id=job.id, follow=True)
        for piece in jobs.ReadLog(log, metadata=metadata):
            sys.stdout.buffer.write(piece.data)
            sys.stdout.buffer.flush()
        asked = job_service_pb2.GetJobRequest(job_id=job.id)
        job = jobs.GetJob(asked, metadata=metadata).job
    print(f"{job.id}: {job_pb2.JobState.Name(job.state)}", file=sys.stderr)
    return job.exit_code


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(main(words[1:] if words[:1] == ["--"] else words or ["echo", "hello"]))
