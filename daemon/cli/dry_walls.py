"""What ``run-local --dry-run`` tells of the filesystem sandbox: the tier that the job would get, and what it would find there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent_runner.job_spec import JobSpec, SourceSpec
from daemon.cli.run_local_place import Place
from sandbox.base import Capabilities, Tier
from sandbox.errors import SandboxError
from sandbox.factory import open_provider

_PARENT = "/var/tmp"  # noqa: S108 - which jobs of root can reach; the folder in it is our own


def look_at_walls(place: Place) -> dict[str, Any]:
    """Return the tier that works here, found by trying it in a folder that is removed; ``problem`` says why there is none."""
    try:
        with TemporaryDirectory(prefix="runner-dry-run-", dir=_PARENT) as folder:
            # Jobs that root starts are other users', who must come through.
            Path(folder).chmod(0o711)
            found = asyncio.run(_found(place, Path(folder, "root")))
    except SandboxError as error:
        return {"tier": None, "walls_not_held": [], "problem": str(error)}
    problem = ""
    if found.tier < Tier.parse(place.spec.sandbox.min):
        problem = f"the job accepts no less than {place.spec.sandbox.min}"
    walls = [str(wall) for wall in found.walls_not_held]
    return {"tier": found.tier.label, "walls_not_held": walls, "problem": problem}


async def _found(place: Place, root: Path) -> Capabilities:
    tier = str(place.config["local.sandbox_tier"].value)
    provider = open_provider(
        place.kind,
        root=root,
        owner_label=f"dry-run-{os.getpid()}",
        tier=None if tier == "auto" else Tier.parse(tier),
        allow_plain=place.config["local.allow_unsandboxed"].value is True,
    )
    try:
        return await provider.probe()
    finally:
        await provider.close()


def mounts(spec: JobSpec, system: str) -> list[str]:
    """Return what the command would find where, a line for each folder; ``system`` says whose all others are."""
    found = ["/job: a workspace of its own"]
    for name, source, target in (
        ("source", spec.source, spec.code_dir),
        ("trusted source", spec.ci_source, "/job/ci (read-only)"),
    ):
        if source.kind != "none":
            found.append(f"{target}: {name}, {_origin(source)}")
    found += [f"/job/inputs: outputs of {', '.join(spec.inputs)}"] if spec.inputs else []
    return [*found, "/home/job, /tmp: empty, its own", f"system folders of the {system}: read-only"]


def _origin(source: SourceSpec) -> str:
    if source.kind == "copy":
        return f"a copy of {source.path}"
    return f"{source.url} at {source.ref or 'its default branch'}"
