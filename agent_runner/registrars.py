"""Which jobs may register secrets while they run. Asked of every job, few of which may; so it imports nothing."""

from __future__ import annotations

from agent_runner.job_spec import JobSpec

PROGRAM = "runnerlib"
MODULE = "workflow"
"""The module of ``runnerlib`` that scripts import by this name alone."""


def may_register(spec: JobSpec, *, has_secrets: bool) -> bool:
    """Tell whether a job can have a use for the socket or the program, which make a very short job longer."""
    if spec.source.kind != "none" or spec.ci_source.kind != "none" or spec.workflow is not None:
        return True
    words = "\n".join(spec.argv)
    return PROGRAM in words or MODULE in words or (has_secrets and spec.masking != "off")
