"""The words of a job and of a record, and those of the Sandbox port: what is asked for, and what was got."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from agent_runner.job_spec import JobSpec
from agent_runner.outcome import LimitRecord, SandboxRecord
from agent_runner.project_names import DEFAULT_PROJECT
from agent_runner.sandbox_spec import SandboxSpec
from sandbox.base import Network, SandboxInfo, SandboxRequest, Tier
from sandbox.limits import DEFAULT_OPEN_FILES, DEFAULT_OUTPUT_BYTES, Limits

KNOWN = 16
"""Of what jobs ask for, and of what they get: most get the same."""


def sandbox_request(
    job_id: str, attempt: int, spec: JobSpec, tell: Callable[[str], None] | None = None
) -> SandboxRequest:
    """Return what one attempt asks of a provider; ``tell`` as in ``SandboxRequest``."""
    asked = spec.sandbox
    min_tier, network, limits, require = _terms(asked)
    return SandboxRequest(
        name=f"{job_id}-{attempt}",
        kind=asked.kind,
        image=spec.container_image,
        project=spec.project or DEFAULT_PROJECT,
        min_tier=min_tier,
        network=network,
        hosts=asked.hosts,
        limits=limits,
        protect=not asked.unprotected,
        require=require,
        cache=asked.cache,
        reuse=asked.reuse == "project",
        nested=asked.nested,
        tell=tell,
    )


@lru_cache(maxsize=KNOWN)
def _terms(asked: SandboxSpec) -> tuple[Tier, Network, Limits, frozenset[str]]:
    limits = Limits(
        memory_bytes=asked.memory_bytes or None,
        cpus=asked.cpus or None,
        pids=asked.pids or None,
        disk_bytes=asked.disk_bytes or None,
        open_files=asked.open_files or DEFAULT_OPEN_FILES,
        output_bytes=asked.output_bytes or DEFAULT_OUTPUT_BYTES,
    )
    return Tier.parse(asked.min), Network(asked.network), limits, frozenset(asked.require)


@lru_cache(maxsize=KNOWN)
def sandbox_record(info: SandboxInfo) -> SandboxRecord:
    """Return what is recorded of a sandbox."""
    return SandboxRecord(
        kind=info.kind,
        tier=info.tier.label,
        walls_not_held=tuple(str(wall) for wall in info.walls_not_held),
        limits=tuple(
            LimitRecord(str(kept.limit), kept.value, str(kept.by)) for kept in info.limits
        ),
    )
