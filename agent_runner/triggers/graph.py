"""From the jobs that a document asks for to the nodes of a graph: ``for_each``, dependencies by name, cycles."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from agent_runner.errors import TriggersRefusedError
from agent_runner.triggers.document import MAX_JOBS, AskedJob, AskedWorkflow

PARENT = ""
"""Stands among dependencies for the job that triggers the others; no job has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One job to be."""

    name: str
    depends_on: tuple[str, ...] = ()
    """Names of nodes of the same graph, and ``PARENT``."""
    inputs: tuple[str, ...] = ()
    """Those of them whose outputs it gets."""
    condition: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    job_file: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes, each after those that it depends on."""

    name: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    nodes: tuple[Node, ...] = ()


def graphs_of(workflows: Sequence[AskedWorkflow], parents: Sequence[str]) -> tuple[Graph, ...]:
    """Return the graphs of a document.

    Args:
        workflows: As they are asked for.
        parents: What the job that triggers them may be called in a ``depends_on``; empty if there is none. A job of the
            workflow with such a name comes first. With a parent, jobs that name no dependency depend on it.

    Raises:
        TriggersRefusedError: Jobs depend on what is not there or on each other, or there are too many.
    """
    graphs = tuple(_graph(workflow, parents) for workflow in workflows)
    count = sum(len(graph.nodes) for graph in graphs)
    if count > MAX_JOBS:
        raise TriggersRefusedError("jobs", f"are {count} jobs in all; at most {MAX_JOBS} can be")
    return graphs


def item_text(item: Any) -> str:
    """Return a value of ``for_each`` as its variable holds it."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)


def _graph(workflow: AskedWorkflow, parents: Sequence[str]) -> Graph:
    members: dict[str, list[str]] = {}
    nodes: dict[str, Node] = {}
    for job in workflow.jobs:
        if job.name in members:
            raise TriggersRefusedError(f"jobs ({job.name}).job_name", "is given twice")
        expanded = _expanded(job)
        members[job.name] = [node.name for node in expanded]
        nodes |= {node.name: node for node in expanded}
        if len(nodes) > MAX_JOBS:
            raise TriggersRefusedError("jobs", f"are more than {MAX_JOBS} jobs in all")
    linked = {name: _linked(node, members, nodes, parents) for name, node in nodes.items()}
    return Graph(name=workflow.name, variables=workflow.variables, nodes=tuple(_ordered(linked)))


def _expanded(job: AskedJob) -> list[Node]:
    node = Node(
        name=job.name,
        depends_on=job.depends_on,
        inputs=job.inputs,
        condition=job.condition,
        env=job.env,
        job_file=job.job_file,
        fields=job.fields,
    )
    if job.for_each is None:
        return [node]
    return [
        replace(node, name=f"{job.name}[{number}]", env={**job.env, job.item_var: item_text(item)})
        for number, item in enumerate(job.for_each)
    ]


def _linked(
    node: Node, members: Mapping[str, list[str]], nodes: Mapping[str, Node], parents: Sequence[str]
) -> Node:
    names = _named(node, "depends_on", members, nodes, parents)
    if not names and parents:
        names[PARENT] = None
    if not names and node.condition:
        raise TriggersRefusedError(f"jobs ({node.name}).condition", "needs depends_on")
    inputs = _named(node, "inputs", members, nodes, parents)
    for name in inputs:
        if name not in names:
            text = f"{name or parents[0]!r} is not among what it depends on"
            raise TriggersRefusedError(f"jobs ({node.name}).inputs", text)
    return replace(node, depends_on=tuple(names), inputs=tuple(inputs))


def _named(
    node: Node,
    field_name: str,
    members: Mapping[str, list[str]],
    nodes: Mapping[str, Node],
    parents: Sequence[str],
) -> dict[str, None]:
    """Return the names of nodes, and ``PARENT``, that a field of a node means."""
    names: dict[str, None] = {}
    for name in getattr(node, field_name):
        if name in members:
            names |= dict.fromkeys(members[name])
        elif name in nodes:
            names[name] = None
        elif name in parents:
            names[PARENT] = None
        else:
            known = [*members, *parents]
            close = difflib.get_close_matches(name[:100], known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            text = f"there is no job {name[:100]!r}{hint}"
            raise TriggersRefusedError(f"jobs ({node.name}).{field_name}", text)
    return names


def _ordered(nodes: Mapping[str, Node]) -> list[Node]:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for node in nodes.values():
        sorter.add(node.name, *(name for name in node.depends_on if name != PARENT))
    try:
        return [nodes[name] for name in sorter.static_order()]
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        raise TriggersRefusedError("jobs", f"wait for each other: {circle}") from None
