"""The variables that every job sees, whichever sandbox runs it."""

from __future__ import annotations

from agent_runner.job_spec import JOB_ROOT, JobSpec
from sandbox.base import Sandbox

LEGACY_PREFIX = "REACTORCIDE_"
"""The first generation's prefix, set too so that its scripts run unchanged."""


def job_environment(job_id: str, attempt: int, spec: JobSpec, sandbox: Sandbox) -> dict[str, str]:
    """Return the base environment of the sandbox with the job's own variables added."""
    facts = {
        "JOB_ID": job_id,
        "ATTEMPT": str(attempt),
        "JOB_ROOT": sandbox.job_root,
        "CODE_DIR": sandbox.inside(spec.code_dir),
        "JOB_DIR": sandbox.inside(spec.working_dir),
        "CI_SOURCE_DIR": sandbox.inside(f"{JOB_ROOT}/ci"),
    }
    env = dict(sandbox.base_env)
    for name, value in facts.items():
        env[f"RUNNER_{name}"] = value
        env[f"{LEGACY_PREFIX}{name}"] = value
    env["RUNNER_JOB_NAME"] = spec.name
    return env
