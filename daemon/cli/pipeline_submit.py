"""Submits a pipeline to the job server as one call, waits for it, and looks up how its jobs are. Imports grpc."""

from __future__ import annotations

from typing import Any

import click

from agent_runner import wire
from agent_runner.workflow_spec import WorkflowSpec, vars_json
from daemon.cli.crew_run import pipelines_dir
from daemon.cli.jobs import print_submitted, wait_for
from daemon.cli.output import note, print_json, state_of
from daemon.cli.server_choice import connect
from daemon.cli.verdict import exit_status
from daemon.errors import DaemonError, RemoteError
from daemon.job_client.job_dicts import JobDict
from daemon.jobs.ids import new_job_id
from daemon.pipelines.pipeline_file import Pipeline
from daemon.pipelines.record import Record, Records, new_record
from runner.v1 import job_service_pb2 as pb


def submit_pipeline(
    ctx: click.Context, loaded: Pipeline, variables: dict[str, Any], *, wait: bool, as_json: bool
) -> int:
    """Submit all jobs or none; return the exit code.

    Raises:
        RemoteError: The server refuses them.
    """
    run_id = new_job_id()
    workflow = WorkflowSpec(id=run_id, name=loaded.name, vars_json=vars_json(variables))
    with connect(ctx) as client:
        jobs = client.submit_all(_requests(loaded, workflow))
        records = Records(pipelines_dir(state_of(ctx)))
        records.save(new_record(run_id, loaded.name, submitted=True, jobs=jobs))
        if wait:
            jobs = _after_all(client, jobs, quiet=as_json)
            records.save(new_record(run_id, loaded.name, submitted=True, jobs=jobs))
    if as_json:
        print_json(records.load(run_id))
    else:
        print_submitted(jobs, as_json=False, waited=wait)
    return _worst(jobs) if wait else 0


def refreshed(ctx: click.Context, record: Record) -> Record:
    """Return a record with its jobs as they are now, and what they triggered; called per picture."""
    try:
        with connect(ctx) as client:
            jobs = _with_children(client, [client.get(job["id"]) for job in record["jobs"]])
    except DaemonError as error:
        note(f"runner: as recorded, because {error}")
        return record
    return {**record, "jobs": jobs}


def _requests(loaded: Pipeline, workflow: WorkflowSpec) -> list[pb.SubmitJobRequest]:
    numbers = {node.name: number for number, node in enumerate(loaded.graph.nodes)}
    requests = []
    for node in loaded.graph.nodes:
        request = pb.SubmitJobRequest(spec=wire.job_spec_to_pb(loaded.specs[node.name]))
        request.spec.condition = node.condition
        request.spec.inputs.extend(node.inputs)
        request.spec.workflow.id = workflow.id
        request.spec.workflow.name = workflow.name
        request.spec.workflow.vars_json = workflow.vars_json
        request.depends_on_requests.extend(numbers[name] for name in node.depends_on)
        requests.append(request)
    return requests


def _after_all(client: Any, jobs: list[JobDict], *, quiet: bool) -> list[JobDict]:
    """Wait until jobs and all that they triggered have ended, and return them."""
    waited: set[str] = set()
    while left := [job["id"] for job in jobs if job["id"] not in waited]:
        wait_for(client, left, quiet=quiet)
        waited.update(left)
        jobs = _with_children(client, jobs)
    return jobs


def _with_children(client: Any, jobs: list[JobDict]) -> list[JobDict]:
    """Return jobs with those that they triggered behind them."""
    found: list[JobDict] = []
    left = list(jobs)
    seen = {job["id"] for job in left}
    while left:
        job = left.pop(0)
        full = client.get(job["id"])
        found.append(full)
        for child in full["children"]:
            if child not in seen:
                seen.add(child)
                try:
                    left.append(client.get(child))
                except RemoteError:  # removed meanwhile
                    continue
    return found


def _worst(jobs: list[JobDict]) -> int:
    ran = (job for job in jobs if job["end_reason"] not in ("SKIPPED", "DEPENDENCY_FAILED"))
    ended = (job for job in ran if job["end_reason"] is not None)
    return max((exit_status(job["end_reason"], job["exit_code"]) for job in ended), default=0)
