"""The variables that every job sees, whichever sandbox runs it."""

from __future__ import annotations

from agent_runner.job_spec import (
    JOB_FACTS,
    JOB_ROOT,
    OLDER_ENV_PREFIX,
    RESERVED_ENV_PREFIX,
    JobSpec,
)
from agent_runner.workflow_input import workflow_environment
from sandbox.base import Sandbox

_NAMES = {fact: (RESERVED_ENV_PREFIX + fact, OLDER_ENV_PREFIX + fact) for fact in JOB_FACTS}


def job_environment(job_id: str, attempt: int, spec: JobSpec, sandbox: Sandbox) -> dict[str, str]:
    """Return the base environment of the sandbox with the job's own variables added."""
    code_dir = sandbox.inside(spec.code_dir)
    facts = {
        "JOB_ID": job_id,
        "ATTEMPT": str(attempt),
        "JOB_ROOT": sandbox.job_root,
        "CODE_DIR": code_dir,
        "JOB_DIR": sandbox.inside(spec.job_dir) if spec.job_dir else code_dir,
        "CI_SOURCE_DIR": sandbox.inside(f"{JOB_ROOT}/ci"),
        "SOURCE_URL": spec.source.url,
        "SOURCE_REF": spec.source.ref,
    }
    env = dict(sandbox.base_env)
    for fact, value in facts.items():
        if value:
            for name in _NAMES[fact]:
                env[name] = value
    env["RUNNER_JOB_NAME"] = spec.name
    if spec.workflow is not None:
        env |= workflow_environment(spec.workflow, sandbox)
    return env
