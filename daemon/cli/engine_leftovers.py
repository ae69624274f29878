"""What killed runners have left in the container engine of this configuration, and whose it is. Part of ``runner gc``."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from agent_runner.workspace_claim import read_claim
from daemon.cli.leftovers import RUN_LOCAL, Leftover, Measure, attempt_of, run_local_lives
from daemon.local.lock import is_locked
from daemon.paths import StateDir
from sandbox.container.leftovers import (
    CACHE,
    CONTAINER,
    EngineLeftover,
    find_made_by_runners,
    remove_all,
)
from sandbox.container.settings import ContainerSettings
from sandbox.errors import SandboxError

_OWNER = re.compile(r"([0-9a-f]{12})(|-[0-9]+|-run-local-[0-9]+-[0-9]+)")


class EngineUnknownError(Exception):
    """The engine cannot be asked; says why."""


def find_engine_leftovers(state: StateDir, settings: ContainerSettings) -> list[Leftover]:
    """Return what is left in an engine, nothing of what a living runner needs.

    Raises:
        EngineUnknownError: It cannot be asked.
    """
    try:
        made = asyncio.run(find_made_by_runners(settings))
    except SandboxError as error:
        raise EngineUnknownError(str(error)) from error
    found = (_judged(one, state) for one in made)
    return [one for one in found if one is not None]


def remove_from_engine(one: Leftover, settings: ContainerSettings) -> str:
    """Remove one; return why that was not possible, or nothing."""
    containers, volumes = ([one.path], []) if one.kind == CONTAINER else ([], [one.path])
    try:
        asyncio.run(remove_all(settings, containers, volumes))
    except SandboxError as error:
        return str(error)
    return ""


def _judged(one: EngineLeftover, state: StateDir) -> Leftover | None:
    """Return a leftover with the reason to keep it, if there is one; None if a living runner needs it."""
    if one.kind == CACHE:
        keep = f"the cache of a project; `docker volume rm {one.name}` removes it"
        measure = Measure(0, one.created_s)
        return Leftover(kind=one.kind, path=one.name, keep=keep, measure=measure)
    owner = _OWNER.fullmatch(one.owner)
    claim = read_claim(Path(one.state_folder)) if one.state_folder.startswith("/") else None
    if claim is not None and claim.held:
        return None
    ours = owner is not None and owner[1] == state.id
    known = state.root if ours else claim.state_dir if claim else None
    keep, guard = "", None if known is None else str(known)
    if owner is not None and owner[2].startswith(f"-{RUN_LOCAL}"):
        guard = None
        if not ours:
            keep = "it belongs to another installation"
        elif run_local_lives(owner[2][1:]):
            return None
    elif known is None:
        keep = "nothing tells which installation it belongs to"
    elif is_locked(StateDir(known, known)):
        return None
    job_id, attempt = attempt_of(one.sandbox)
    return Leftover(
        kind=one.kind,
        path=one.name,
        state_dir=None if known is None else str(known),
        guard=guard,
        job_id=job_id,
        attempt=attempt,
        keep=keep,
        measure=Measure(0, one.created_s),
    )
