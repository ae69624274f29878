"""What a triggered job has from its parent, and what it may not have beyond it.

The command that writes ``triggers.json`` may be anybody's code. So the jobs that it asks for get no secret, no folder of
the host, no repository behind a wall and no weaker sandbox than the job that it runs in was given.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from agent_runner.errors import TriggersRefusedError
from agent_runner.job_spec import JobSpec, SourceSpec
from agent_runner.outcome import SourceRecord
from agent_runner.sandbox_spec import TIERS, SandboxSpec
from agent_runner.secret_refs import SecretRef, find_refs
from daemon.triggers.node_job import NodeJob

_BOUNDS = ("memory_bytes", "cpus", "pids", "disk_bytes", "open_files", "output_bytes")


def pinned(parent: JobSpec, found: SourceRecord) -> JobSpec:
    """Return a parent with the commits that its attempt really had in place of its refs, so that its jobs have the same code.

    Called once per attempt that triggers any; what names a repository of its own keeps the ref that it names.
    """
    return replace(
        parent,
        source=_at(parent.source, found.commit),
        ci_source=_at(parent.ci_source, found.ci_commit),
    )


def _at(source: SourceSpec, commit: str) -> SourceSpec:
    return replace(source, ref=commit) if source.kind == "git" and commit else source


def inherited(child: NodeJob, parent: JobSpec, place: str) -> JobSpec:
    """Return the job that a parent triggers.

    Raises:
        TriggersRefusedError: It asks for more than the parent has; says of what.
    """
    spec, given = child
    if "source_type" not in given:
        spec = replace(spec, source=parent.source)
        if "code_dir" not in given:
            spec = replace(spec, code_dir=parent.code_dir)
    if "ci_source_type" not in given:
        spec = replace(spec, ci_source=parent.ci_source)
    if "container_image" not in given:
        spec = replace(spec, container_image=parent.container_image)
    if "labels" not in given:
        spec = replace(spec, labels=parent.labels)
    spec = replace(
        spec,
        sandbox=narrowed(spec, parent.sandbox),
        project=parent.project,
        masking=parent.masking,
        trigger_secrets=parent.trigger_secrets,
    )
    _check_secrets(find_refs(spec.env), parent, place)
    for prefix, source in (("source", spec.source), ("ci_source", spec.ci_source)):
        _check_source(source, parent, f"{place}.{prefix}")
    return spec


def narrowed(spec: JobSpec, parent: SandboxSpec) -> SandboxSpec:
    """Return the parent's sandbox with whatever a job asks to have narrower; what is wider counts for nothing."""
    child = spec.sandbox
    bounds: dict[str, Any] = {
        name: _lower(getattr(child, name), getattr(parent, name)) for name in _BOUNDS
    }
    network, hosts = _network(child, parent)
    return replace(
        parent,
        min=min(child.min, parent.min, key=TIERS.index),
        network=network,
        hosts=hosts,
        require=tuple(dict.fromkeys((*parent.require, *child.require))),
        unprotected=child.unprotected and parent.unprotected,
        container_only=tuple(name for name in parent.container_only if name in spec.env),
        **bounds,
    )


def _network(child: SandboxSpec, parent: SandboxSpec) -> tuple[str, tuple[str, ...]]:
    if "off" in (child.network, parent.network):
        return "off", ()
    if parent.network == "on" or (
        child.network == "hosts" and set(child.hosts) <= set(parent.hosts)
    ):
        return child.network, child.hosts
    return parent.network, parent.hosts


def _lower(child: float, parent: float) -> float:
    return min(filter(None, (child, parent)), default=0)


def _check_secrets(refs: Sequence[SecretRef], parent: JobSpec, place: str) -> None:
    # Not those of its source's credentials: its command has never seen them.
    own = set(find_refs(parent.env))
    for ref in refs:
        name = f"{ref.path}:{ref.key}"
        if ref in own or any(fnmatchcase(name, pattern) for pattern in parent.trigger_secrets):
            continue
        raise TriggersRefusedError(
            place,
            f"refers to {ref}, which env of job {parent.name} does not; list it in triggers.secrets of its job file",
        )


def _check_source(source: SourceSpec, parent: JobSpec, place: str) -> None:
    own = (parent.source, parent.ci_source)
    if source.credentials and (source.url, source.credentials) not in {
        (one.url, one.credentials) for one in own
    }:
        _check_secrets(find_refs({"credentials": source.credentials}), parent, place)
    if source.kind == "copy":
        # Nor one below it: whoever wrote the code there may have made it a link.
        folders = {posixpath.normpath(one.path) for one in own if one.kind == "copy"}
        if posixpath.normpath(source.path) not in folders:
            text = f"is not the folder that job {parent.name} was copied from"
            raise TriggersRefusedError(f"{place}_path", text)
    elif source.kind == "git" and source.url not in {one.url for one in own}:
        remote = source.url.startswith("https://") and parent.sandbox.network == "on"
        if not remote:
            text = (
                f"is neither a repository of job {parent.name} nor one that it may reach over https"
            )
            raise TriggersRefusedError(f"{place}_url", text)
