"""The jobs that follow an attempt: what an agent-runner reports, turned into jobs that the store can accept with the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent_runner import wire
from agent_runner.errors import InvalidJobSpecError, TriggersRefusedError
from agent_runner.job_spec import MAX_SPEC_BYTES, JobSpec
from agent_runner.outcome import Outcome, Triggers
from agent_runner.secret_refs import check_refs
from agent_runner.triggers.document import check_document, check_output
from agent_runner.triggers.graph import PARENT, Graph, Node, graphs_of
from agent_runner.triggers.strict_json import read_object
from agent_runner.workflow_spec import WorkflowSpec, check_vars, vars_json
from daemon.jobs.ids import new_job_id
from daemon.jobs.models import MAX_CHAIN_DEPTH, Job, NewJob
from daemon.jobs.store import JobStore
from daemon.jobs.workflows import failed
from daemon.triggers.inheritance import inherited, pinned
from daemon.triggers.node_job import JobFileText, base_dir_of, files_by_name, node_job

DOCUMENT = "triggers.json"
MAX_DOCUMENT_CHARS = 2 << 20
"""What an agent-runner writes anew can be longer than what the job wrote."""
MAX_FILES_CHARS = 256 << 10

logger = logging.getLogger(__name__)


async def with_following(
    store: JobStore, job_id: str, outcome: Outcome
) -> tuple[Outcome, list[NewJob]]:
    """Return the end of an attempt, and the jobs that are to be accepted with it; called per report that has any.

    If they cannot be accepted, the attempt has failed.
    """
    try:
        _check_output(outcome)
        if outcome.triggers is None:
            return outcome, []
        parent = await store.get(job_id)
        return outcome, await asyncio.to_thread(_following, parent, outcome)
    except TriggersRefusedError as error:
        return failed(replace(outcome, workflow_output=""), str(error)), []


def _following(parent: Job, outcome: Outcome) -> list[NewJob]:
    try:
        return following(parent, outcome)
    except TriggersRefusedError:
        raise
    except Exception:
        # Whatever a job has found: its end must be accepted, or it would be reported for ever.
        logger.exception(
            "triggers hit a defect", extra={"action": "triggers_crashed", "job_id": parent.id}
        )
        raise TriggersRefusedError(
            DOCUMENT, "cannot be read; see the log of the job server"
        ) from None


def following(parent: Job, outcome: Outcome) -> list[NewJob]:
    """Return the jobs that are to be accepted with the end of an attempt, each after those that it depends on.

    Raises:
        TriggersRefusedError: One of them is no job, has more than its parent, or comes too late in a chain of triggers.
    """
    if outcome.triggers is None:
        return []
    try:
        graphs = graphs_in(outcome.triggers, (parent.spec.name, parent.id))
        _check_depth(graphs, parent)
        _check_work(graphs, outcome.triggers)
        files = files_by_name(dict(outcome.triggers.files), parent.spec)
        parent = parent._replace(spec=pinned(parent.spec, outcome.source))
        return [job for graph in graphs for job in _jobs(graph, parent, outcome, files)]
    except TriggersRefusedError as error:
        raise TriggersRefusedError(DOCUMENT, str(error)) from None


def graphs_in(triggers: Triggers, parents: Sequence[str]) -> tuple[Graph, ...]:
    """Return the graphs of a document that an agent-runner reports.

    Raises:
        TriggersRefusedError: It breaks a rule.
    """
    if len(triggers.document) > MAX_DOCUMENT_CHARS:
        raise TriggersRefusedError("", "is too large")
    try:
        document = read_object(triggers.document.encode())
    except ValueError as error:
        raise TriggersRefusedError("", str(error)) from None
    return graphs_of(check_document(document, lambda _: None), parents)


def triggered_spec(node: Node, files: Mapping[str, JobFileText], parent: JobSpec) -> JobSpec:
    """Return the job of a node that a parent triggers, without its dependencies and its workflow.

    Raises:
        TriggersRefusedError: It is no job, or has more than its parent.
    """
    place = f"jobs ({node.name})"
    if node.job_file and node.job_file not in files:
        raise TriggersRefusedError(f"{place}.job_file", "is missing")
    found = node_job(node, files.get(node.job_file), base_dir_of(parent), place)
    spec = inherited(found, parent, place)
    try:
        spec.validate()
        check_refs(spec)
    except InvalidJobSpecError as error:
        raise TriggersRefusedError(f"{place}.{error.field}", error.problem) from None
    return spec


def first_vars(graph: Graph, parent: JobSpec, outcome: Outcome) -> dict[str, Any]:
    """Return the variables with which a workflow begins that a job without one triggers: the document's, over what the job gave.

    Raises:
        TriggersRefusedError: They are too large.
    """
    given = json.loads(outcome.workflow_output) if outcome.workflow_output else {}
    variables = {
        **given.get("vars", {}),
        **{f"{parent.name}.{name}": value for name, value in given.get("outputs", {}).items()},
        **graph.variables,
    }
    try:
        return check_vars(variables)
    except ValueError as error:
        raise TriggersRefusedError("workflow.vars", str(error)) from None


def _check_depth(graphs: Sequence[Graph], parent: Job) -> None:
    if any(graph.nodes for graph in graphs) and parent.depth >= MAX_CHAIN_DEPTH:
        text = f"{MAX_CHAIN_DEPTH} jobs have triggered each other before it; no more may follow"
        raise TriggersRefusedError("jobs", text)


def _check_work(graphs: Sequence[Graph], triggers: Triggers) -> None:
    """Bound what is to be parsed: a job file is read once for each job that names it."""
    sizes = {name: len(content) for name, content in triggers.files}
    total = sum(sizes.get(node.job_file, 0) for graph in graphs for node in graph.nodes)
    if total > MAX_FILES_CHARS:
        text = f"their job files are larger than {MAX_FILES_CHARS // 1024} KiB, each counted for each of its jobs"
        raise TriggersRefusedError("jobs", text)


def _check_output(outcome: Outcome) -> None:
    if outcome.workflow_output:
        try:
            check_output(read_object(outcome.workflow_output.encode()))
        except ValueError as error:
            raise TriggersRefusedError("workflow-output.json", str(error)) from None


def _jobs(
    graph: Graph, parent: Job, outcome: Outcome, files: Mapping[str, JobFileText]
) -> list[NewJob]:
    workflow = _workflow(graph, parent, outcome)
    ids = {node.name: new_job_id() for node in graph.nodes} | {PARENT: parent.id}
    jobs = []
    for node in graph.nodes:
        spec = replace(
            triggered_spec(node, files, parent.spec),
            depends_on=tuple(ids[name] for name in node.depends_on),
            inputs=tuple(parent.spec.name if name == PARENT else name for name in node.inputs),
            condition=node.condition,
            workflow=workflow,
        )
        _check_whole(spec, f"jobs ({node.name})")
        jobs.append(
            NewJob(
                id=ids[node.name],
                spec=spec,
                request_id=None,
                payload_sha256="",
                parent_id=parent.id,
                depth=parent.depth + 1,
            )
        )
    return jobs


def _check_whole(spec: JobSpec, place: str) -> None:
    """Check a finished job as a submit does: by the rules, and that it fits into its message."""
    try:
        spec.validate()
        size = wire.job_spec_to_pb(spec).ByteSize()
    except InvalidJobSpecError as error:
        raise TriggersRefusedError(f"{place}.{error.field}", error.problem) from None
    except ValueError:
        raise TriggersRefusedError(
            place, "holds a number that is too large for its field"
        ) from None
    if size > MAX_SPEC_BYTES:
        raise TriggersRefusedError(place, "is larger than 1 MiB in all")


def _workflow(graph: Graph, parent: Job, outcome: Outcome) -> WorkflowSpec:
    """Return the workflow of triggered jobs: the parent's, unless they are to have one of another name."""
    own = parent.spec.workflow
    if own is not None and graph.name in ("", own.name):
        variables = {**json.loads(own.vars_json), **graph.variables}
        return replace(own, vars_json=vars_json(variables))
    variables = first_vars(graph, parent.spec, outcome)
    return WorkflowSpec(id=new_job_id(), name=graph.name, vars_json=vars_json(variables))
