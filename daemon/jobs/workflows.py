"""What jobs of one workflow pass on to each other: pure functions that both stores share, so that they cannot differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import EndReason, Outcome
from agent_runner.workflow_spec import MAX_VARS_BYTES, vars_json
from daemon.jobs.models import Job
from daemon.jobs.states import JobState


class GivenOutput(NamedTuple):
    """What one ended job gave to its workflow."""

    job_id: str
    name: str
    output: str
    """JSON: ``vars`` and ``outputs``."""


Outputs = Callable[[str], Sequence[GivenOutput]]
"""Returns what the jobs of a workflow gave, in the order of their ends."""


def may_trigger(job: Job) -> bool:
    """Tell whether the end of an attempt lets follow what it triggers: it ended the job, and not by a cancel."""
    return job.state in (JobState.SUCCEEDED, JobState.FAILED)


def with_vars(spec: JobSpec, outputs: Outputs) -> JobSpec:
    """Return a specification with the variables that an attempt that begins now finds; called per claim."""
    if spec.workflow is None:
        return spec
    variables = json.loads(spec.workflow.vars_json)
    for given in outputs(spec.workflow.id):
        for name, value in _given(given.name, json.loads(given.output)):
            variables[name] = value
    return replace(spec, workflow=replace(spec.workflow, vars_json=vars_json(variables)))


def checked_output(job: Job, outcome: Outcome, outputs: Outputs) -> Outcome:
    """Return the end of an attempt of a job; a failed one if it gives a variable a value that another job gave another.

    Attempts and repetitions of one job, which have its name, may differ.
    """
    if job.spec.workflow is None or not outcome.workflow_output:
        return replace(outcome, workflow_output="") if outcome.workflow_output else outcome
    mine = json.loads(outcome.workflow_output)["vars"]
    given_by_others = outputs(job.spec.workflow.id)
    for given in given_by_others:
        theirs = {} if given.name == job.spec.name else json.loads(given.output)["vars"]
        for name in mine:
            if name in theirs and theirs[name] != mine[name]:
                text = f"jobs {given.name} and {job.spec.name} give the variable {name} different values"
                return failed(replace(outcome, workflow_output=""), text)
    own = GivenOutput(job.id, job.spec.name, outcome.workflow_output)
    merged = with_vars(job.spec, lambda _: (*given_by_others, own)).workflow
    if merged is not None and len(merged.vars_json) > MAX_VARS_BYTES:
        text = f"the variables of the workflow would be larger than {MAX_VARS_BYTES // 1024} KiB"
        return failed(replace(outcome, workflow_output=""), text)
    return outcome


def failed(outcome: Outcome, problem: str) -> Outcome:
    """Return the end of an attempt whose follow-up cannot be accepted; a failure of its own stays what it was."""
    message = f"{outcome.message}; {problem}" if outcome.message else problem
    reason = EndReason.WORKFLOW_FAILED if outcome.succeeded else outcome.end_reason
    return replace(outcome, end_reason=reason, message=message, triggers=None)


def _given(name: str, output: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from output["vars"].items()
    yield from ((f"{name}.{key}", value) for key, value in output["outputs"].items())
