"""Which jobs an agent-runner can run whose container engine is away."""

from __future__ import annotations

from collections.abc import Collection

from agent_runner.job_spec import JobSpec
from agent_runner.project_names import DEFAULT_PROJECT


def does_without_container(spec: JobSpec, projects: Collection[str]) -> bool:
    """Tell whether a job can run outside a container. ``statements.SELECT_PENDING_OUTSIDE`` says the same.

    Args:
        spec: The job.
        projects: Those whose jobs run outside unless they ask for a container.
    """
    sandbox = spec.sandbox
    if sandbox.kind == "filesystem" or sandbox.fallback == "allow":
        return True
    return sandbox.kind == "auto" and (spec.project or DEFAULT_PROJECT) in projects
