"""The environment of a job whose loopback is not the one that its author meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agent_runner.job_masking import JobMasking
from sandbox.loopback_urls import with_host
from sandbox.masking.floors import is_secret_name


async def rewritten(
    env: Mapping[str, str], host: str, secrets: Collection[str], masking: JobMasking
) -> dict[str, str]:
    """Return an environment whose URLs of loopback name a host. Called once per attempt, and only where that is to be.

    Args:
        env: All variables of the command.
        host: As the sandbox names it.
        secrets: The values of the job's references. What becomes of them is hidden like them.
        masking: Of the attempt.
    """
    found = {name: with_host(value, host) for name, value in env.items()}
    changed = {name: value for name, value in found.items() if value != env[name]}
    await masking.presume([value for name, value in changed.items() if is_secret_name(name)])
    for number, value in enumerate(secrets):
        if (new := with_host(value, host)) != value:
            masking.masker.add(f"rewritten-{number}", new)
    return found
